package postgres_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// rosterOf returns a roster of the first revision with n subjects, every third
// of them in the first arm.
func rosterOf(n int) (*experiment.Roster, *experiment.RosterSubjects) {
	mean := 1.5
	r := &experiment.Roster{
		Revision: 1, Author: "ann", Arms: []experiment.RosterArm{{Variant: "control"}, {Variant: "short"}},
		Balance: &experiment.Balance{
			Strata:     []experiment.StratumBalance{{Stratum: "<Łódź>\x00", Subjects: []int64{1, 2}}},
			Covariates: []experiment.CovariateBalance{{Name: "spend", Arms: []experiment.ArmCovariate{{Subjects: 1, Mean: &mean, Note: "n"}, {Missing: 2}}}},
		},
	}
	subjects := &experiment.RosterSubjects{}
	for i := range n {
		arm := min(i%3, 1)
		r.Arms[arm].Subjects++
		var id experiment.SubjectID
		binary.BigEndian.PutUint32(id[:], uint32(i))
		subjects.IDs, subjects.Arms = append(subjects.IDs, id), append(subjects.Arms, uint8(arm))
	}
	return r, subjects
}

func createRoster(t *testing.T, db *postgres.DB, key string, n int) *experiment.Roster {
	t.Helper()
	r, subjects := rosterOf(n)
	made, err := db.CreateRoster(t.Context(), key, r, subjects)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// rosterRows counts what is stored of rosters.
func rosterRows(t *testing.T, d *database) [2]int {
	t.Helper()
	return [2]int{scalar[int](t, d.raw, `SELECT count(*) FROM rosters`), scalar[int](t, d.raw, `SELECT count(*) FROM roster_subjects`)}
}

func TestCreateRoster(t *testing.T) {
	const n = 100_001 // More than one statement writes.
	d := newDatabase(t)
	before := createExperiment(t, d.DB, "e", definition())
	createExperiment(t, d.DB, "f", definition())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	found, _ := listen(ctx, d.other)
	<-found
	made := createRoster(t, d.DB, "e", n)
	want, subjects := rosterOf(n)
	if diff := cmp.Diff(want, made, cmpopts.IgnoreFields(experiment.Roster{}, "ID", "CreateTime")); diff != "" || made.CreateTime.IsZero() {
		t.Errorf("created at %v (-want +got):\n%s", made.CreateTime, diff)
	}
	read, err := d.other.Roster(t.Context(), "e")
	if err != nil || !cmp.Equal(made, read) {
		t.Errorf("read back: %v\n%s", err, cmp.Diff(made, read))
	}
	if got, err := d.other.RosterSubjects(t.Context(), made); err != nil || !cmp.Equal(subjects, got) {
		t.Errorf("%d subjects read back, %v", len(got.IDs), err)
	}
	small := createRoster(t, d.DB, "f", 3)
	if got, err := d.RosterSubjects(t.Context(), small); err != nil || len(got.IDs) != 3 {
		t.Errorf("of another roster: %v, %v", got, err)
	}
	after, err := d.Experiment(t.Context(), "e")
	if err != nil || after.Version <= before.Version || after.Current.Number != 1 || after.Roster.ID != made.ID || after.Roster.Subjects() != n || after.Roster.Balance != nil {
		t.Errorf("the experiment is %+v, %v", after, err)
	}
	if got := (<-found)["e"]; got != after.Version {
		t.Errorf("announced was version %d, not %d", got, after.Version)
	}
	for _, h := range histories(t, d.DB, nil) {
		if h.Experiment.Roster == nil || h.Roster != nil {
			t.Errorf("history: %+v", h)
		}
	}
}

func TestCreateRosterRefused(t *testing.T) {
	d := newDatabase(t)
	createLayer(t, d.DB, "l")
	for key, change := range map[string]func(*experiment.Definition){
		"draft": func(*experiment.Definition) {}, "running": func(*experiment.Definition) {},
		"external": func(d *experiment.Definition) { d.External = true },
		"layered":  func(d *experiment.Definition) { d.Layer = "l" },
		"half":     func(d *experiment.Definition) { d.Traffic = 0.5 },
	} {
		def := definition()
		change(&def)
		createExperiment(t, d.DB, key, def)
	}
	transition(t, d.DB, "running", start)
	if _, err := d.UpdateExperiment(t.Context(), "draft", 0, described("changed")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key    string
		kind   error
		reason string
	}{
		{"none", experiment.ErrNotFound, "EXPERIMENT_NOT_FOUND"},
		{"running", experiment.ErrPrecondition, "ROSTER_NEEDS_DRAFT"},
		{"external", experiment.ErrPrecondition, "ROSTER_NOT_POSSIBLE"},
		{"layered", experiment.ErrPrecondition, "ROSTER_NOT_POSSIBLE"},
		{"half", experiment.ErrPrecondition, "ROSTER_NOT_POSSIBLE"},
		{"draft", experiment.ErrAborted, "EXPERIMENT_CHANGED"},
	} {
		r, subjects := rosterOf(1)
		_, err := d.CreateRoster(t.Context(), tt.key, r, subjects)
		wantKind(t, err, tt.kind, tt.reason)
	}
	// What breaks in the middle leaves nothing.
	createExperiment(t, d.DB, "e", definition())
	r, subjects := rosterOf(100_002)
	subjects.IDs[100_001] = subjects.IDs[0]
	if _, err := d.CreateRoster(t.Context(), "e", r, subjects); err == nil {
		t.Error("a subject was stored twice")
	}
	if rows := rosterRows(t, d); rows != [2]int{} {
		t.Errorf("%v rows are left", rows)
	}
	createRoster(t, d.DB, "e", 1)
}

func TestCreateRosterAtOnce(t *testing.T) {
	d := newDatabase(t)
	createExperiment(t, d.DB, "e", definition())
	made := 0
	for _, err := range atOnce(4, func(i int) error {
		r, subjects := rosterOf(1000)
		_, err := []*postgres.DB{d.DB, d.other}[i%2].CreateRoster(t.Context(), "e", r, subjects)
		return err
	}) {
		if err == nil {
			made++
			continue
		}
		wantKind(t, err, experiment.ErrAlreadyExists, "ROSTER_EXISTS")
	}
	if rows := rosterRows(t, d); made != 1 || rows != [2]int{1, 1000} {
		t.Errorf("%d were made, of %v rows", made, rows)
	}
}

func TestDeleteRoster(t *testing.T) {
	d := newDatabase(t)
	createExperiment(t, d.DB, "e", definition())
	createExperiment(t, d.DB, "other", definition())
	createRoster(t, d.DB, "other", 5)
	first := createRoster(t, d.DB, "e", 3)
	remove := func(want int64) {
		t.Helper()
		if n, err := d.DeleteRoster(t.Context(), "e", ""); err != nil || n != want {
			t.Fatalf("deleted %d, %v", n, err)
		}
	}
	refused := func(kind error, reason string) {
		t.Helper()
		_, err := d.DeleteRoster(t.Context(), "e", "")
		wantKind(t, err, kind, reason)
	}
	remove(3)
	refused(experiment.ErrNotFound, "ROSTER_NOT_FOUND")
	if rows := rosterRows(t, d); rows != [2]int{1, 5} {
		t.Errorf("%v rows", rows)
	}
	second := createRoster(t, d.DB, "e", 4)
	if second.ID == first.ID {
		t.Error("an id was used twice")
	}
	if got, err := d.RosterSubjects(t.Context(), first); err != nil || len(got.IDs) != 0 {
		t.Errorf("the deleted roster has %v, %v", got, err)
	}
	transition(t, d.DB, "e", start)
	refused(experiment.ErrPrecondition, "ROSTER_IN_USE")
	transition(t, d.DB, "e", conclude)
	refused(experiment.ErrPrecondition, "ROSTER_IN_USE")
	before := transition(t, d.DB, "e", postgres.StateChange{To: experiment.StateArchived})
	remove(4)
	refused(experiment.ErrNotFound, "ROSTER_NOT_FOUND")
	after, err := d.Experiment(t.Context(), "e")
	if err != nil || after.Version <= before.Version || after.Roster.ID != second.ID || after.Roster.HasSubjects() || after.Roster.Subjects() != 4 {
		t.Errorf("archived: %+v, %v", after, err)
	}
	if rows := rosterRows(t, d); rows != [2]int{2, 5} {
		t.Errorf("%v rows", rows)
	}
}
