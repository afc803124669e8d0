package stats

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
)

// cell is one metric in one segment, as testdata/growthbook.py reads it.
type benchCell struct {
	Kind string     `json:"kind"`
	Arms []benchArm `json:"arms"`
}

type benchArm struct {
	N        int64     `json:"n"`
	Means    []float64 `json:"means"`
	Products []float64 `json:"products"`
}

// BenchmarkCells judges 1,000 cells, of 50 metrics in 20 segments, by every
// method, on one core: proportions, means, means with a covariate and ratios with
// two. It prints cells a second. With ASSAY_GBSTATS, the folder that has GrowthBook's
// Python package gbstats, it times that engine on the same cells, and prints how
// many times longer it takes for the quickest of its methods than this package
// for all of them.
func BenchmarkCells(b *testing.B) {
	const cells = 1000
	rng := rand.New(rand.NewPCG(50, 20))
	kinds := []struct {
		name       string
		formula    Formula
		covariates []int
	}{
		{"proportion", ComponentMean(0), nil},
		{"mean", ComponentMean(0), nil},
		{"mean_ra", ComponentMean(0), []int{2}},
		{"ratio_ra", ComponentRatio(0, 1), []int{2, 3}},
	}
	var rival []benchCell
	var requests []Request
	for i := range cells {
		kind := kinds[i%len(kinds)]
		cell := benchCell{Kind: kind.name}
		r := Request{Formula: kind.formula, Covariates: kind.covariates, Proportion: kind.name == "proportion"}
		for range 2 {
			m := positive(rng, 200, r.Proportion)
			r.Arms = append(r.Arms, Arm{Strata: []Moments{m}})
			cell.Arms = append(cell.Arms, benchArm{m.N, m.Means, m.Products})
		}
		requests, rival = append(requests, r), append(rival, cell)
	}
	tests := func() []Test {
		var looks []Look
		for k := range 5 {
			looks = append(looks, Look{Time: float64(k+1) / 5, Information: float64(k + 1)})
		}
		schedule, err := NewSchedule(OBrienFleming, looks)
		if err != nil {
			b.Fatal(err)
		}
		return []Test{
			{Method: FixedHorizon, ConfidenceLevel: 0.95},
			{Method: AlwaysValid, ConfidenceLevel: 0.95},
			{Method: GroupSequential, ConfidenceLevel: 0.95, Schedule: schedule},
			{Method: Bayesian, ConfidenceLevel: 0.95, Prior: Prior{Alpha: 1, Beta: 1, LiftDeviation: 0.3}},
		}
	}
	for b.Loop() {
		for _, test := range tests() {
			for i := range requests {
				requests[i].Test = test
				if _, err := Compare(requests[i]); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	seconds := b.Elapsed().Seconds() / float64(b.N) / cells
	b.ReportMetric(1/seconds, "cells/s")
	if path := os.Getenv("ASSAY_GBSTATS"); path != "" {
		fmt.Printf("GrowthBook's engine takes %.0f times as long\n", timeRival(b, path, rival)/seconds)
	}
}

// positive makes the moments of four positive numbers that go together, for so
// many subjects. The first may be 1 or 0 instead, as it is more than 1 or not.
func positive(rng *rand.Rand, subjects int, binary bool) Moments {
	m := NewMoments(4)
	for range subjects {
		taste := rng.ExpFloat64()
		first := taste * rng.ExpFloat64()
		if binary {
			first = math.Floor(math.Min(first, 1))
		}
		m.Add([]float64{first, 1 + taste, taste * rng.ExpFloat64(), 1 + taste*rng.Float64()})
	}
	return m
}

// timeRival returns the seconds a cell that the quickest method of GrowthBook
// takes.
func timeRival(b *testing.B, path string, cells []benchCell) float64 {
	input, err := json.Marshal(cells)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), "/usr/bin/python3", "testdata/growthbook.py")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+path)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), os.Stderr
	output, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	var seconds map[string]float64
	if err := json.Unmarshal(output, &seconds); err != nil || len(seconds) == 0 {
		b.Fatalf("%v: %s", err, output)
	}
	quickest := 1e9
	for _, s := range seconds {
		quickest = min(quickest, s)
	}
	return quickest
}
