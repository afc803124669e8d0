package server_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// TestBatchAssignIsBounded asks for the most that a batch answers, and for one
// assignment more.
func TestBatchAssignIsBounded(t *testing.T) {
	a := newAPI(t)
	for i := range 11 {
		a.do(t, "ExperimentService/CreateExperiment", fmt.Sprintf(`{"experiment":{"key":"e%d","variants":[{"key":"a","control":true},{"key":"b"}],"labels":{"even":"%t"}}}`, i, i%2 == 0))
		a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":"e%d"}`, i))
	}
	batch := func(subjects int, rest string) string {
		return `{"subjects":[` + strings.TrimSuffix(strings.Repeat(`{"key":"u"},`, subjects), ",") + `]` + rest + `}`
	}
	ten := `,"experiments":["e0","e1","e2","e3","e4","e5","e6","e7","e8","missing"]`
	for _, c := range []struct {
		name     string
		request  string
		of, each int
	}{
		{"named", batch(1000, ten), 1000, 10},
		{"all", batch(909, ""), 909, 11},
		{"labelled", batch(1000, `,"labels":{"even":"true"}`), 1000, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := call[*assayv1.BatchAssignResponse](t, a, "AssignmentService/BatchAssign", c.request)
			if n := len(resp.Results); n != c.of {
				t.Fatalf("%d results", n)
			}
			for _, r := range resp.Results {
				if len(r.Assignments) != c.each {
					t.Fatalf("%d assignments: %v", len(r.Assignments), r)
				}
			}
		})
	}
	a.refuses(t, []refusal{
		{"named", "AssignmentService/BatchAssign", batch(1000, strings.Replace(ten, "]", `,"e10"]`, 1)), codes.InvalidArgument, []string{"subjects"}, "11000 assignments"},
		{"all", "AssignmentService/BatchAssign", batch(910, ""), codes.InvalidArgument, []string{"subjects"}, "10010 assignments"},
	})
}
