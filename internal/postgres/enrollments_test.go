package postgres_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/experiment"
)

func enrolled(experimentID int32, subject int, variant string) experiment.Enrolled {
	return experiment.Enrolled{Enrollment: experiment.Enrollment{ExperimentID: experimentID, SubjectID: subjectID(subject)}, Variant: variant}
}

// checkEnrolled compares what was found in the order of experiments and
// subjects.
func checkEnrolled(t *testing.T, got []experiment.Enrolled, err error, want ...experiment.Enrolled) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b experiment.Enrolled) int {
		return cmp.Or(cmp.Compare(a.ExperimentID, b.ExperimentID), slices.Compare(a.SubjectID[:], b.SubjectID[:]))
	})
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEnrollments holds that the exposure counts that was recorded first,
// whatever the phases and times of exposure.
func TestEnrollments(t *testing.T) {
	d := newDatabase(t)
	insert := func(experimentID int32, subject, phase int, variant string, exposed, recorded time.Time) {
		t.Helper()
		exec(t, d.raw, `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time, recorded_time) VALUES ($1, $2, $3, $4, $5, $6)`,
			experimentID, [16]byte(subjectID(subject)), phase, variant, exposed, recorded)
	}
	insert(7, 1, 2, "b", day(9), day(10))
	insert(7, 1, 1, "a", day(1), day(11)) // Earlier, and recorded later.
	insert(7, 2, 1, "b", day(2), day(10)) // One statement recorded these.
	insert(7, 2, 1, "a", day(3), day(10))
	insert(7, 3, 1, "b", day(2), day(10)) // These too, of one time.
	insert(7, 3, 1, "a", day(2), day(10))
	insert(8, 1, 1, "c", day(2), day(12))
	insert(9, 1, 1, "d", day(2), day(10)) // Not asked for.
	insert(7, 5, 1, "a", day(2), day(10))
	now := enrolled(7, 4, "a")
	now.Recent = true
	recordExposures(t, d.DB, exposure(4, "a", day(1)))

	var names []experiment.Enrollment
	for _, id := range []int32{7, 8} {
		for _, subject := range []int{1, 2, 3, 4, 6, 1} {
			names = append(names, enrolled(id, subject, "").Enrollment)
		}
	}
	want := []experiment.Enrolled{enrolled(7, 1, "b"), enrolled(7, 2, "b"), enrolled(7, 3, "a"), now, enrolled(8, 1, "c")}
	got, err := d.Enrollments(t.Context(), names)
	checkEnrolled(t, got, err, want...)
	got, err = d.EnrollmentsAt(t.Context(), names, time.Time{})
	checkEnrolled(t, got, err, want...)
	got, err = d.EnrollmentsAt(t.Context(), names, day(10))
	checkEnrolled(t, got, err, want[:3]...)
	got, err = d.EnrollmentsAt(t.Context(), names, day(10).Add(-time.Microsecond))
	checkEnrolled(t, got, err)
	got, err = d.Enrollments(t.Context(), nil)
	checkEnrolled(t, got, err)
}

// TestEnrollmentsByKey holds that a lookup reads an index, however small the
// table looks.
func TestEnrollmentsByKey(t *testing.T) {
	d := newDatabase(t)
	var items []experiment.Exposure
	for i := range 2000 {
		items = append(items, exposure(i, "a", day(1)))
	}
	recordExposures(t, d.other, items...)
	exec(t, d.raw, `ANALYZE exposures`)
	var names []experiment.Enrollment
	for i := range 1000 {
		names = append(names, enrolled(7, i, "").Enrollment)
	}
	got, err := d.Enrollments(t.Context(), names)
	if err != nil || len(got) != len(names) {
		t.Fatal(len(got), err)
	}
	// A connection is counted at its end.
	d.Close()
	for scalar[bool](t, d.raw, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'assay-assign')`) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := scalar[int](t, d.raw, `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'exposures'`); n > 0 {
		t.Errorf("the whole table was read %d times", n)
	}
}
