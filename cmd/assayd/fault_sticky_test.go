package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

const stickyFaults = "faults-sticky"

// TestStickyUnderStalls holds what a sticky experiment promises while lookups and
// commits stall: no subject is recorded with two variants by the servers' own
// assignments, what is said to be known is the variant that the subject keeps, and
// what is said to be recorded is. In each round one server enrolls subjects, a
// reshuffle moves them, and the other server, which knows none of them, is asked
// behind a network that stalls. Another reshuffle comes in the midst of it.
//
// The long form is
//
//	go test ./cmd/assayd -run TestStickyUnderStalls -v -faults 10m -timeout 30m
func TestStickyUnderStalls(t *testing.T) {
	db := newCluster(t)
	proxy := newProxy(t, db)
	warm := connect(t, serveWith(t, db.url("assay"), t.TempDir()).address(t))
	cold := connect(t, serveWith(t, proxy.url("assay"), t.TempDir()).address(t))
	for _, c := range [][3]string{
		{"MetricService", "CreateMetric", `{"metric":{"key":"revenue","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase"}}}`},
		{"ExperimentService", "CreateExperiment", strings.Replace(definition(stickyFaults, "ASSIGNMENT_NATIVE"), `"unit"`, `"sticky":true,"unit"`, 1)},
		{"ExperimentService", "StartExperiment", `{"key":"` + stickyFaults + `"}`},
	} {
		if _, err := call(t.Context(), warm, "assay.v1."+c[0], c[1], c[2]); err != nil {
			t.Fatal(err)
		}
	}
	seed := *faultsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("the seed is %d; -faults-seed takes it again", seed)
	s := &stickyDrill{T: t, warm: warm, cold: cold, proxy: proxy, kept: map[string]string{}}
	random := rand.New(rand.NewPCG(seed, 0))
	began, rounds := time.Now(), 0
	for ; rounds < 3 || time.Since(began) < *faultsFor; rounds++ {
		// A lookup takes two delays: those of the first are slow enough to fail one by
		// one, of the second to come in time, and in the third nothing passes.
		w := weather{delay: time.Duration(150+random.IntN(400)) * time.Millisecond}
		switch rounds % 3 {
		case 1:
			w.delay = time.Duration(random.IntN(100)) * time.Millisecond
		case 2:
			w = weather{swallowUp: true}
		}
		s.round(rounds, w)
	}
	s.checkRecorded(db.url("assay"))
	t.Logf("%d rounds, %d subjects, %d answers known, %d unknown, %d durable ones recorded, %d not", rounds, len(s.kept), s.known, s.unknown, s.durable, s.failed)
	if s.unknown == 0 || s.durable == 0 {
		t.Error("the stalls showed nothing")
	}
}

type stickyDrill struct {
	*testing.T
	warm, cold *grpc.ClientConn
	proxy      *proxy

	mu                              sync.Mutex
	kept                            map[string]string // By subject, once something of it is known to be recorded.
	known, unknown, durable, failed int
}

// roundSubjects are enrolled in each round, and as many come new.
const roundSubjects = 40

func (s *stickyDrill) round(n int, w weather) {
	for i := range roundSubjects {
		s.assign(s.warm, fmt.Sprintf("u-%d-%d", n, i), assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE)
	}
	s.reshuffle()
	s.proxy.set(w)
	var askers sync.WaitGroup
	for i := range 2 * roundSubjects {
		key := fmt.Sprintf("u-%d-%d", n, i)
		for _, mode := range []assayv1.ExposureRecording{
			assayv1.ExposureRecording_EXPOSURE_RECORDING_NONE,
			assayv1.ExposureRecording_EXPOSURE_RECORDING_BEST_EFFORT,
			assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE,
		} {
			askers.Go(func() { s.assign(s.cold, key, mode) })
		}
		if i%10 == 0 {
			time.Sleep(30 * time.Millisecond)
		}
		if i == roundSubjects {
			// Newcomers are recorded on both sides of this one.
			s.reshuffle()
			askers.Go(func() { s.assign(s.warm, key, assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE) })
		}
	}
	time.Sleep(500 * time.Millisecond)
	s.proxy.set(weather{})
	askers.Wait()
}

// reshuffle gives everybody who is not enrolled a variant anew.
func (s *stickyDrill) reshuffle() {
	if _, err := call(s.Context(), s.warm, "assay.v1.ExperimentService", "UpdateExperiment",
		`{"allow_movement":true,"reshuffle":true,"experiment":{"key":"`+stickyFaults+`"}}`); err != nil {
		s.Error(err)
	}
}

// assign asks for a subject, and holds the answer to what is known of it.
func (s *stickyDrill) assign(conn *grpc.ClientConn, key string, mode assayv1.ExposureRecording) {
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	s.mu.Lock()
	kept := s.kept[key]
	s.mu.Unlock()
	resp, err := assayv1.NewAssignmentServiceClient(conn).Assign(ctx, &assayv1.AssignRequest{
		Subject: &assayv1.Subject{Key: key}, Experiments: []string{stickyFaults}, ExposureRecording: mode})
	if err != nil {
		s.Errorf("%s: %v", key, err)
		return
	}
	got := resp.Assignments[0]
	durable := mode == assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case got.EnrollmentUnknown:
		s.unknown++
	case kept != "" && (got.Variant != kept || got.Reason != assayv1.Reason_REASON_STICKY):
		s.Errorf("%s keeps %s: %v", key, kept, got)
	default:
		s.known++
	}
	switch {
	case !durable:
	case got.ExposureError != "":
		s.failed++
	case got.EnrollmentUnknown || s.kept[key] != "" && s.kept[key] != got.Variant:
		s.Errorf("%s, recorded with %s: %v", key, s.kept[key], got)
	default:
		s.durable++
		s.kept[key] = got.Variant
	}
}

// checkRecorded holds the table, and an analysis of it, to what was answered.
func (s *stickyDrill) checkRecorded(url string) {
	conn, err := pgx.Connect(s.Context(), url)
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(s.Context(), `SELECT subject_id, min(variant), max(variant) FROM exposures GROUP BY subject_id`)
	if err != nil {
		s.Fatal(err)
	}
	recorded := map[experiment.SubjectID]string{}
	var id [16]byte
	var first, last string
	if _, err := pgx.ForEachRow(rows, []any{&id, &first, &last}, func() error {
		if recorded[id] = first; first != last {
			s.Errorf("%x is recorded with two variants", id)
		}
		return nil
	}); err != nil {
		s.Fatal(err)
	}
	for key, variant := range s.kept {
		if got := recorded[experiment.Pepper(testPepper).SubjectID(experiment.Subject{Unit: experiment.DefaultUnit, Key: key})]; got != variant {
			s.Errorf("%s was recorded with %q, and is stored with %q", key, variant, got)
		}
	}
	analysis, err := assayv1.NewAnalysisServiceClient(s.warm).AnalyzeExperiment(s.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: stickyFaults})
	if err != nil {
		s.Fatal(err)
	}
	observed := int64(0)
	for _, n := range analysis.GetSampleRatio().GetObserved() {
		observed += n
	}
	if n := int64(len(recorded)); observed != n {
		s.Errorf("the analysis is of %d subjects, and %d are recorded", observed, n)
	}
}
