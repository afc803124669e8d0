package experiment

// Enrollment names a subject in a sticky experiment. The subject is enrolled
// once an exposure of it is recorded.
type Enrollment struct {
	ExperimentID int32
	SubjectID    SubjectID
}

// Enrolled is a subject that is enrolled, with the variant that it keeps.
type Enrolled struct {
	Enrollment
	Variant string // Of the first recorded exposure.
	// Recent says that the exposure was recorded so lately that one which counts
	// as recorded before it may still be committed.
	Recent bool
}
