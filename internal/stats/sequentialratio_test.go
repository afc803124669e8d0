package stats

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// TestSequentialSampleRatioReference: mpmath with 60 digits.
func TestSequentialSampleRatioReference(t *testing.T) {
	var file struct {
		Cases []struct {
			Observed []int64
			Weights  []float64
			P        float64
		}
	}
	load(t, "srm.json", &file)
	for _, c := range file.Cases {
		got, err := SequentialSampleRatio(Split{c.Observed, c.Weights})
		if err != nil {
			t.Fatal(err)
		}
		nearOptional(t, fmt.Sprint(c.Observed, c.Weights), got, &c.P, 1e-9)
	}
}

// TestSequentialSampleRatioOfPhases: the same of several phases, with other weights
// or other arms.
func TestSequentialSampleRatioOfPhases(t *testing.T) {
	var file struct {
		Phases []struct {
			Observed [][]int64
			Weights  [][]float64
			P        float64
		}
	}
	load(t, "srm.json", &file)
	if len(file.Phases) < 10 {
		t.Fatalf("only %d cases", len(file.Phases))
	}
	for _, c := range file.Phases {
		var splits []Split
		for k := range c.Observed {
			splits = append(splits, Split{c.Observed[k], c.Weights[k]})
		}
		got, err := SequentialSampleRatio(splits...)
		if err != nil {
			t.Fatal(err)
		}
		nearOptional(t, fmt.Sprint(c.Observed, c.Weights), got, &c.P, 1e-9)
	}
}

// TestSequentialSampleRatioPublished: the values that another implementation
// printed, day by day.
func TestSequentialSampleRatioPublished(t *testing.T) {
	var file struct {
		Published []struct {
			Days       [][]int64
			Weights, P []float64
		}
	}
	load(t, "srm.json", &file)
	for _, c := range file.Published {
		split, lowest := Split{make([]int64, len(c.Weights)), c.Weights}, 1.0
		for d, day := range c.Days {
			for a, n := range day {
				split.Observed[a] += n
			}
			p, err := SequentialSampleRatio(split)
			if err != nil {
				t.Fatal(err)
			}
			lowest = min(lowest, *p)
			near(t, fmt.Sprint(c.Days, " day ", d), lowest, c.P[d], 1e-6)
		}
	}
}

// TestSequentialSampleRatioWatched: watched after every 512 subjects, up to a
// million, an intact split is called broken in 5 % of experiments at most. Of
// 1,000 experiments more than 72 would be by a chance below 0.1 %.
func TestSequentialSampleRatioWatched(t *testing.T) {
	const experiments, words, alpha = 1000, 1 << 14, 0.05
	rng := rand.New(rand.NewPCG(31, 32))
	alarms := 0
	for range experiments {
		phases := []Split{{make([]int64, 2), []float64{3, 1}}, {make([]int64, 2), []float64{1, 1}}}
		for at := range words {
			phase, word := &phases[0], rng.Uint64() // 64 subjects.
			if at < words/4 {
				word &= rng.Uint64()
			} else {
				phase = &phases[1]
			}
			treated := int64(bits.OnesCount64(word))
			phase.Observed[0] += 64 - treated
			phase.Observed[1] += treated
			if at%8 != 7 {
				continue
			}
			p, err := SequentialSampleRatio(phases...)
			if err != nil {
				t.Fatal(err)
			}
			if *p <= alpha {
				alarms++
				break
			}
		}
	}
	t.Logf("%d false alarms in %d experiments", alarms, experiments)
	if alarms > 72 {
		t.Errorf("%d false alarms in %d experiments, more than %v of them", alarms, experiments, alpha)
	}
}

func TestSequentialSampleRatioEdges(t *testing.T) {
	one := 1.0
	for _, c := range []struct {
		name   string
		splits []Split
		p      *float64
	}{
		{"nothing at all", nil, nil},
		{"no subjects", []Split{{[]int64{0, 0}, []float64{1, 1}}}, nil},
		{"an empty phase does not count", []Split{{[]int64{0, 0}, []float64{1, 3}}, {[]int64{9, 9}, []float64{1, 1}}}, &one},
		{"an arm without weight does not count", []Split{{[]int64{9, 9, 0}, []float64{1, 1, 0}}}, &one},
		{"subjects without weight", []Split{{[]int64{9, 9, 1}, []float64{1, 1, 0}}}, new(float64)},
		{"subjects with a weight of −0", []Split{{[]int64{9, 9}, []float64{1, math.Copysign(0, -1)}}}, new(float64)},
		{"one arm", []Split{{[]int64{9}, []float64{1}}}, &one},
		{"beyond all doubt", []Split{{[]int64{1e15, 0}, []float64{1, 1}}}, new(float64)},
		{"two where hardly one is expected", []Split{{[]int64{2, 10}, []float64{1e-320, 1}}}, new(float64)},
		{"the smallest weight there is", []Split{{[]int64{1, 1e14}, []float64{5e-324, 1e300}}}, new(float64)},
	} {
		got, err := SequentialSampleRatio(c.splits...)
		if err != nil {
			t.Fatal(err)
		}
		nearOptional(t, c.name, got, c.p, 0)
	}
	if _, err := SequentialSampleRatio(Split{[]int64{-1, 1}, []float64{1, 1}}); err == nil {
		t.Error("a negative count was taken")
	}
}
