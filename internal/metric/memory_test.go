package metric

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// manyCapped is a study of metrics that are capped by percentiles.
func manyCapped(t testing.TB, n int) *Study {
	t.Helper()
	d := definition("control", "short")
	var uses []Use
	for i := range n {
		c := capped(experiment.Cap{Upper: percentile(99)})
		uses = append(uses, use(string(rune('a'+i/26))+string(rune('a'+i%26)), c, experiment.RoleSecondary))
	}
	return mustStudy(t, d, uses, "country")
}

// cappedRows adds so many subjects to a fold.
func cappedRows(f *Fold, n int) {
	rng := rand.New(rand.NewPCG(1, 2))
	r := row("control", make([]float64, len(f.study.Columns()))...)
	r.Segments, r.FirstExposure = [][]byte{[]byte("PL")}, moment.Add(-time.Hour)
	for i := range n {
		r.Variant = []byte([]string{"control", "short"}[i%2])
		for j := range r.Values {
			r.Values[j] = rng.Float64()
		}
		f.Add(&r)
	}
}

// TestFoldBytes compares what a fold says that it takes with what it takes.
func TestFoldBytes(t *testing.T) {
	const subjects = 30_000 // Not a whole number of blocks.
	study := manyCapped(t, 50)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	f := study.NewFold(moment)
	cappedRows(f, subjects)
	taken := heap() - before
	if said := f.Bytes(); said < taken*9/10 || said > taken*3/2 {
		t.Errorf("a fold says that it takes %d bytes, and takes %d", said, taken)
	}
	if kept := study.SubjectBytes() * subjects; kept > f.Bytes() || kept < f.Bytes()*9/10 {
		t.Errorf("%d bytes are foreseen, of %d", kept, f.Bytes())
	}
	runtime.KeepAlive(f)
}

// TestFoldPauses holds that a fold of many subjects and metrics pauses often, and ends
// when it is told to.
func TestFoldPauses(t *testing.T) {
	study, enough := manyCapped(t, 20), errors.New("enough")
	pauses, most := 0, 0
	tally := func() error {
		f := study.NewFold(moment)
		pauses, f.Pause = 0, func() error {
			if pauses++; pauses == most {
				return enough
			}
			return nil
		}
		cappedRows(f, 2*keptBlock)
		f.Tally()
		return f.Err()
	}
	if err := tally(); err != nil || pauses < 2*20+2 {
		t.Errorf("%d pauses, %v", pauses, err)
	}
	for most = range pauses {
		if most++; !errors.Is(tally(), enough) || pauses != most {
			t.Errorf("told to end at pause %d, a fold paused %d times", most, pauses)
		}
	}
}

// TestComparisonsPause is the same of comparisons.
func TestComparisonsPause(t *testing.T) {
	s, enough := example(), errors.New("enough")
	pauses, most := 0, 0
	s.Pause = func() error {
		if pauses++; pauses == most {
			return enough
		}
		return nil
	}
	if _, err := s.Compare(); err != nil || pauses < 2*len(s.Arms) { // Where each is read, and compared.
		t.Fatalf("%d pauses, %v", pauses, err)
	}
	all := pauses
	for most = 1; most <= all; most++ {
		pauses = 0
		if _, err := s.Compare(); !errors.Is(err, enough) || pauses != most {
			t.Errorf("told to end at pause %d of %d, a comparison paused %d times: %v", most, all, pauses, err)
		}
	}
	study := manyCapped(t, 3)
	f := study.NewFold(moment)
	cappedRows(f, 100)
	if _, err := study.Pausing(func() error { return enough }).Analyze(f.Tally(), map[int32][]float64{1: {0.5, 0.5}}); !errors.Is(err, enough) {
		t.Errorf("an analysis that was told to end: %v", err)
	}
}

// TestPlansPause is the same of plans whose power takes long to compute: of rates with
// few events, by every method and whatever is asked.
func TestPlansPause(t *testing.T) {
	enough := errors.New("enough")
	for _, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid, experiment.MethodGroupSequential, experiment.MethodBayesian} {
		for _, asked := range []string{"subjects", "minimum_effect", "power"} {
			p := planned(RateBaseline(0.01), experiment.ObjectiveDifference)
			p.Plan.Method, p.Subjects, p.Effect = method, 4000, &experiment.Magnitude{Value: 0.01}
			if method == experiment.MethodGroupSequential {
				p.Plan.Spending = experiment.SpendingOBrienFleming
			}
			if method == experiment.MethodBayesian {
				p.Plan.Prior = &experiment.Prior{Alpha: 1, Beta: 1}
			}
			switch asked {
			case "subjects":
				p.Subjects = 0
			case "power":
				p.Power = nil
			default:
				p.Effect = nil
			}
			pauses, most := 0, 0
			p.Pause = func() error {
				if pauses++; most > 0 && pauses >= most {
					return enough
				}
				return nil
			}
			if _, err := p.Solve(); err != nil || pauses == 0 {
				t.Fatalf("%s, %s: %d pauses, %v", method, asked, pauses, err)
			}
			if method == experiment.MethodFixedHorizon && pauses < 50 {
				t.Errorf("%s, %s: %d pauses", method, asked, pauses)
			}
			all := pauses
			for most = 1; most <= all; most += 1 + all/10 {
				pauses = 0
				if _, err := p.Solve(); !errors.Is(err, enough) || pauses > most+100 {
					t.Errorf("%s, %s: told to end at pause %d of %d, it paused %d times: %v", method, asked, most, all, pauses, err)
				}
			}
		}
	}
}

// TestResultBytes counts what an analysis compares: each variant by each metric in each
// value of a segment, even where nearly nobody is, and on each day of a timeline.
func TestResultBytes(t *testing.T) {
	study := manyCapped(t, 3)
	f := study.NewFold(moment)
	r := row("control", make([]float64, len(f.study.Columns()))...)
	r.FirstExposure = moment.Add(-time.Hour)
	for i := range 150 {
		r.Segments = [][]byte{{byte('a' + i%26), byte('a' + i/26)}}
		f.Add(&r)
	}
	if got, want := study.ResultBytes(f.Tally()), int64(3*151*2*comparisonBytes); got != want {
		t.Errorf("151 cells of 3 metrics and 2 variants take %d bytes, want %d", got, want)
	}
	m := use("a", capped(experiment.Cap{}), experiment.RolePrimary)
	d := definition("control", "short")
	daily, err := NewTimeline(d, d.Variants, m)
	if err != nil {
		t.Fatal(err)
	}
	tally := &Tally{Metrics: make([]MetricTally, len(daily.metrics))}
	tally.Metrics[0].Days, tally.Metrics[1].Days = make([]Day, 1000), make([]Day, 500)
	if got, want := daily.ResultBytes(tally), int64((1000+500+len(daily.metrics)-2)*2*comparisonBytes); got != want {
		t.Errorf("1,500 points of 2 variants take %d bytes, want %d", got, want)
	}
}
