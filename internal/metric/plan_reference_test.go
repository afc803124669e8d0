package metric

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// TestRatioPlansReference: the deviation of the subjects' influence values in R, and
// its power.t.test, or the Welch test of arms of different sizes.
func TestRatioPlansReference(t *testing.T) {
	data, err := os.ReadFile("../stats/testdata/power.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Ratios []struct {
			Means, Covariances      []float64
			Value, Deviation, Share float64
			Effect, Alpha, Power    float64
			Alternative             stats.Alternative
			Subjects                int64
			Smallest                float64
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Ratios) < 10 {
		t.Fatalf("only %d cases", len(file.Ratios))
	}
	for i, c := range file.Ratios {
		b := RatioBaseline(c.Means[0], c.Means[1], c.Covariances[0], c.Covariances[2], c.Covariances[1])
		name := fmt.Sprintf("ratio %d: ", i)
		want(t, name+"value", &b.Value, c.Value, 1e-9)
		want(t, name+"deviation", &b.Deviation, c.Deviation, 1e-9)
		b.Direction = DirectionIncrease
		p := planned(b, experiment.ObjectiveDifference)
		if c.Alternative == stats.Greater {
			p.Objective = experiment.ObjectiveSuperiority
		}
		p.Plan.ConfidenceLevel, p.Power, p.Weights = 1-c.Alpha, &c.Power, []float64{1 - c.Share, c.Share}
		p.Effect = &experiment.Magnitude{Value: c.Effect}
		if got := mustSolve(t, p).Subjects; got != c.Subjects {
			t.Errorf("%s%d subjects, want %d", name, got, c.Subjects)
		}
		p.Effect, p.Subjects = nil, c.Subjects
		got := mustSolve(t, p).Effect
		want(t, name+"smallest effect", &got, c.Smallest, 1e-9)
	}
}
