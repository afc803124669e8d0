package server

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// TestFaultsOfLongMessages holds that of a message each number of which is a fault not
// each is told: in 4 MiB they would take hundreds.
func TestFaultsOfLongMessages(t *testing.T) {
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ strata, faults int }{{100, 1600}, {1000, 1}} {
		req := &assayv1.CompareSummariesRequest{Components: []string{"x"}}
		for _, variant := range []string{"control", "short"} {
			nothing := &assayv1.SummaryStratum{Subjects: 2, Means: slices.Repeat([]float64{math.NaN()}, 8)}
			req.Arms = append(req.Arms, &assayv1.SummaryArm{Variant: variant, Strata: slices.Repeat([]*assayv1.SummaryStratum{nothing}, tt.strata)})
		}
		var invalid *experiment.InvalidError
		if err := checkRequest(validator, req); !errors.As(err, &invalid) {
			t.Fatal(err)
		}
		first := invalid.Violations[0]
		if len(invalid.Violations) != tt.faults || first.Field != "arms[0].strata[0].means[0]" || strings.Contains(first.Message, "nothing else is looked for") != (tt.faults == 1) {
			t.Errorf("of %d strata %d faults are told, the first as %+v", tt.strata, len(invalid.Violations), first)
		}
	}
}
