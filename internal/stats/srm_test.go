package stats

import (
	"errors"
	"fmt"
	"testing"
)

// TestSampleRatioReference: R's chisq.test.
func TestSampleRatioReference(t *testing.T) {
	var file struct {
		ChiSq []struct {
			Observed          []int64
			Weights, Expected []float64
			Statistic, P      float64
			DF                int
		}
	}
	load(t, "reference-r.json", &file)
	for _, c := range file.ChiSq {
		got, err := CheckSampleRatio(Split{c.Observed, c.Weights})
		if err != nil {
			t.Fatal(err)
		}
		what := fmt.Sprint(c.Observed, c.Weights)
		nearOptional(t, what, got.Statistic, &c.Statistic, 1e-9)
		nearOptional(t, what+" p", got.PValue, &c.P, 1e-9)
		if got.DegreesOfFreedom != c.DF {
			t.Errorf("%s: %d degrees of freedom, want %d", what, got.DegreesOfFreedom, c.DF)
		}
		few := false
		for a := range c.Expected {
			near(t, what+" expected", got.Expected[0][a], c.Expected[a], 1e-12)
			few = few || c.Expected[a] < 5
		}
		if got.TooFew != few {
			t.Errorf("%s: too few is %v", what, got.TooFew)
		}
	}
}

// TestSampleRatioPooled: R's chisq.test of counts that were pooled by hand, whose
// arms expect fewer than 5 subjects.
func TestSampleRatioPooled(t *testing.T) {
	var file struct {
		Pooled []struct {
			Observed          []int64
			Weights, Expected []float64
			Statistic, P      float64
			DF                int
		}
	}
	load(t, "pooled.json", &file)
	if len(file.Pooled) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range file.Pooled {
		// An arm of weight 0 is in no pool.
		got, err := CheckSampleRatio(Split{append(c.Observed, 0), append(c.Weights, 0)})
		if err != nil {
			t.Fatal(err)
		}
		what := fmt.Sprint(c.Observed, c.Weights)
		nearOptional(t, what, got.Statistic, &c.Statistic, 1e-9)
		nearOptional(t, what+" p", got.PValue, &c.P, 1e-9)
		for a := range c.Expected {
			near(t, what+" expected", got.Expected[0][a], c.Expected[a], 1e-12)
		}
		if got.DegreesOfFreedom != c.DF || got.TooFew {
			t.Errorf("%s: %d degrees of freedom, want %d; too few is %v", what, got.DegreesOfFreedom, c.DF, got.TooFew)
		}
	}
	for _, split := range []Split{
		{[]int64{5, 2}, []float64{5, 2}}, {[]int64{5, 2, 2}, []float64{5, 2, 2}},
		{[]int64{4, 4, 4}, []float64{1, 1, 1}}, {[]int64{600, 3, 0}, []float64{200, 1, 0}}, {[]int64{1}, []float64{1}},
	} {
		if got, err := CheckSampleRatio(split); err != nil || !got.TooFew {
			t.Errorf("%v: %+v, %v; there are no two groups that expect 5", split, got, err)
		}
	}
	if got, err := CheckSampleRatio(Split{[]int64{300, 299, 2, 1}, []float64{100, 100, 1, 0}}); err != nil || *got.PValue != 0 {
		t.Errorf("beside a pool, subjects of an arm of weight 0: %+v, %v", got, err)
	}
}

// TestSampleRatioPhases: sums of scipy's chisquare.
func TestSampleRatioPhases(t *testing.T) {
	var file struct {
		Phases []struct {
			Observed     [][]int64
			Weights      [][]float64
			Statistic, P float64
			DF           int
		}
	}
	load(t, "reference-python.json", &file)
	for i, c := range file.Phases {
		var splits []Split
		for k := range c.Observed {
			splits = append(splits, Split{c.Observed[k], c.Weights[k]})
		}
		got, err := CheckSampleRatio(splits...)
		if err != nil {
			t.Fatal(err)
		}
		nearOptional(t, fmt.Sprint("statistic ", i), got.Statistic, &c.Statistic, 1e-9)
		nearOptional(t, fmt.Sprint("p-value ", i), got.PValue, &c.P, 1e-9)
		if got.DegreesOfFreedom != c.DF {
			t.Errorf("%d: %d degrees of freedom, want %d", i, got.DegreesOfFreedom, c.DF)
		}
	}
}

func TestSampleRatioEdges(t *testing.T) {
	one := 1.0
	for _, c := range []struct {
		name   string
		splits []Split
		df     int
		p      *float64
		note   bool
	}{
		{"nothing at all", nil, 0, nil, true},
		{"no subjects", []Split{{[]int64{0, 0}, []float64{1, 1}}}, 0, nil, true},
		{"an empty phase does not count", []Split{{[]int64{0, 0}, []float64{1, 1}}, {[]int64{9, 9}, []float64{1, 1}}}, 1, &one, false},
		{"an arm without weight does not count", []Split{{[]int64{9, 9, 0}, []float64{1, 1, 0}}}, 1, &one, false},
		{"subjects without weight", []Split{{[]int64{9, 9, 1}, []float64{1, 1, 0}}}, 1, new(float64), true},
		{"one arm", []Split{{[]int64{9}, []float64{1}}}, 0, nil, true},
		{"the smallest weight there is", []Split{{[]int64{1, 1e15}, []float64{5e-324, 1e300}}}, 1, new(float64), true},
	} {
		got, err := CheckSampleRatio(c.splits...)
		if err != nil {
			t.Fatal(err)
		}
		nearOptional(t, c.name, got.PValue, c.p, 0)
		if got.DegreesOfFreedom != c.df || (got.Note != "") != c.note {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestSampleRatioRefuses(t *testing.T) {
	for field, split := range map[string]Split{
		"splits[0]":             {[]int64{1}, []float64{1, 1}},
		"splits[0].weights[1]":  {[]int64{1, 1}, []float64{1, -1}},
		"splits[0].weights":     {[]int64{1, 1}, []float64{0, 0}},
		"splits[0].observed[0]": {[]int64{-1, 1}, []float64{1, 1}},
	} {
		_, err := CheckSampleRatio(split)
		var invalid InvalidError
		if !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
