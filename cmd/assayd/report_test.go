package main

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestPrintAnalysis(t *testing.T) {
	in, err := os.ReadFile("testdata/analysis.json")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	printAnalysis(&out, fromJSON(t, string(in), &assayv1.AnalyzeExperimentResponse{}))
	const golden = "testdata/analysis.txt"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("the report differs from %s (-want +got):\n%s", golden, diff)
	}
}

// An answer without any figure is printed all the same.
func TestPrintEmptyAnalysis(t *testing.T) {
	a := &assayv1.AnalyzeExperimentResponse{Metrics: []*assayv1.MetricAnalysis{{
		Arms:        []*assayv1.ArmResult{{}},
		Comparisons: []*assayv1.Comparison{{}, {Unadjusted: &assayv1.Comparison{}}},
		Segments:    []*assayv1.SegmentResult{{}},
	}}}
	var out bytes.Buffer
	printAnalysis(&out, a)
	if out.Len() == 0 {
		t.Error("nothing was printed")
	}
}

func TestFigure(t *testing.T) {
	for x, want := range map[float64]string{
		0:            "0.0000000",
		0.0057261:    "0.0057261",
		0.65278936:   "0.6527894",
		-0.5:         "-0.5000000",
		13908.33:     "13,908.330",
		-1234567.891: "-1,234,567.9",
		9.99999999:   "10.0000000",
		1.5e12:       "1,500,000,000,000.0",
		2.5e15:       "2.500000e+15",
		-3e-7:        "-3.000000e-07",
	} {
		if got := figure(&x); got != want {
			t.Errorf("figure(%v) = %q, want %q", x, got, want)
		}
	}
	if got := figure(nil); got != absent {
		t.Errorf("figure(nil) = %q", got)
	}
}

func TestPValue(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0.0000", 1: "1.0000", 0.04996: "0.0500", 0.0001: "0.0001", 0.00009: "9.0e-05", 1.23e-17: "1.2e-17",
	} {
		if got := pValue(&x); got != want {
			t.Errorf("pValue(%v) = %q, want %q", x, got, want)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1,000", 64_000: "64,000", 123_456_789: "123,456,789", -999: "-999", -1000: "-1,000",
	} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q, want %q", n, got, want)
		}
	}
}
