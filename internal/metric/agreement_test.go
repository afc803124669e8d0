package metric

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// objectives are all that can be asked of a metric, with margins that the data of
// the tests below come near to.
var objectives = []struct {
	name      string
	objective experiment.Objective
	margin    *experiment.Magnitude
	role      experiment.Role
}{
	{"difference", experiment.ObjectiveDifference, nil, experiment.RolePrimary},
	{"superiority", experiment.ObjectiveSuperiority, nil, experiment.RolePrimary},
	{"non-inferiority", experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 0.3}, experiment.RolePrimary},
	{"relative non-inferiority", experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 0.1, Relative: true}, experiment.RolePrimary},
	{"equivalence", experiment.ObjectiveEquivalence, &experiment.Magnitude{Value: 0.7}, experiment.RolePrimary},
	{"relative equivalence", experiment.ObjectiveEquivalence, &experiment.Magnitude{Value: 0.25, Relative: true}, experiment.RolePrimary},
	{"guardrail", experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 0.3}, experiment.RoleGuardrail},
	{"relative guardrail", experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 0.1, Relative: true}, experiment.RoleGuardrail},
}

// visitors are subjects of 40 days in two phases, with a number around 3 and an
// effect on it that fades and turns around.
func visitors(seed uint64, n int) []Row {
	r := rand.New(rand.NewPCG(seed, 17))
	early := []float64{1.5, -1.5, 0.4, 0}[seed%4]
	rows := make([]Row, n)
	for i := range rows {
		treated, day, past := r.IntN(2), r.IntN(40), r.NormFloat64()
		effect := early * (1 - float64(day)/25)
		rows[i] = row([]string{"control", "short"}[treated], 3+past+1.5*r.NormFloat64()+effect*float64(treated))
		rows[i].Phase = int32(1 + day/20)
		rows[i].AttributeNumbers = []float64{past}
		rows[i].FirstExposure = moment.Add(-week).AddDate(0, 0, day-40).Add(time.Duration(r.Int64N(int64(24 * time.Hour))))
	}
	return rows
}

// TestIntervalsAgreeWithPValues follows experiments from day to day. At every moment,
// for every objective and method, the p-value that is not corrected is at most 5 %
// exactly when the interval that is shown excludes the margin, and both say what
// `significant` says.
func TestIntervalsAgreeWithPValues(t *testing.T) {
	for _, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid, experiment.MethodGroupSequential, experiment.MethodBayesian} {
		for _, asked := range objectives {
			for _, direction := range []Direction{DirectionIncrease, DirectionDecrease} {
				t.Run(fmt.Sprint(method, " ", asked.name, " ", direction), func(t *testing.T) {
					d, revenue := watched("spend")
					d.Plan.Method, d.Plan.Correction, d.Plan.Spending = method, experiment.CorrectionHolm, experiment.SpendingOBrienFleming
					revenue.Metric.Definition.Direction = direction
					revenue.Role, revenue.Objective, revenue.Margin = asked.role, asked.objective, asked.margin
					uses := []Use{revenue}
					if asked.role == experiment.RoleGuardrail { // A plan with looks has a primary metric.
						first := revenue
						first.Metric.Key, first.Role, first.Objective, first.Margin = "first", experiment.RolePrimary, "", nil
						uses = append(uses, first)
					}
					sides := map[bool]int{}
					for seed := range uint64(4) {
						for _, c := range everyDay(t, mustStudy(t, d, uses), visitors(seed, 400)) {
							agree(t, &c, asked.objective, asked.margin, direction, asked.role, sides)
						}
					}
					if sides[true] == 0 || sides[false] == 0 {
						t.Errorf("intervals exclude the margin %d times, and do not %d times: the data are not what this test needs", sides[true], sides[false])
					}
				})
			}
		}
	}
}

// everyDay analyses subjects at the end of every few days, and returns the
// comparisons of the last metric.
func everyDay(t *testing.T, s *Study, rows []Row) (all []Comparison) {
	var looks []Look
	step := 4
	if s.definition.Plan.Method == experiment.MethodGroupSequential {
		step = 12 // As boundaries take their time.
	}
	for day := 3; day < 40; day += step {
		at := s
		if s.definition.Plan.Method == experiment.MethodGroupSequential {
			var err error
			if at, err = s.AtLook(looks, true); err != nil {
				continue // The last one was taken.
			}
		}
		f := at.NewFold(moment.AddDate(0, 0, day-39))
		for i := range rows {
			f.Add(&rows[i])
		}
		tally := f.Tally()
		shares := map[int32][]float64{}
		for _, phase := range tally.Phases {
			shares[phase] = []float64{1, 1}
		}
		a, err := at.Analyze(tally, shares)
		if err != nil {
			t.Fatal(err)
		}
		if a.Look != nil {
			looks = append(looks, *a.Look)
		}
		c := a.Metrics[len(a.Metrics)-1].Comparisons[0]
		all = append(all, c)
		if c.Unadjusted != nil {
			all = append(all, *c.Unadjusted)
		}
	}
	return all
}

// agree holds a comparison's interval against its p-value, unless the two are as
// near to the margin as rounding.
func agree(t *testing.T, c *Comparison, objective experiment.Objective, m *experiment.Magnitude, direction Direction, role experiment.Role, seen map[bool]int) {
	t.Helper()
	interval, margin := c.Difference, 0.0
	if m != nil {
		margin = m.Value
		if m.Relative {
			interval = c.Lift
		}
		if objective == experiment.ObjectiveNonInferiority {
			margin *= -direction.sign()
		}
	}
	if interval.Lower == nil && interval.Upper == nil {
		return
	}
	low, high := interval.Lower != nil && *interval.Lower >= margin, interval.Upper != nil && *interval.Upper <= margin
	excludes := low || high
	switch {
	case objective == experiment.ObjectiveEquivalence:
		excludes = interval.Lower != nil && interval.Upper != nil && *interval.Lower >= -margin && *interval.Upper <= margin
	case objective != experiment.ObjectiveDifference && role != experiment.RoleGuardrail && (interval.Lower != nil) != (direction == DirectionIncrease):
		t.Errorf("a one-sided interval has the bound of the other side: %+v", interval)
	}
	seen[excludes]++
	if c.ChanceToWin == nil && c.PValue == nil {
		t.Errorf("an interval without a p-value: %+v, notes %q", interval, c.Notes)
		return
	}
	if c.PValue == nil {
		if c.AdjustedPValue == nil && c.Significant != excludes {
			t.Errorf("significant %t, interval %v to %v of %v", c.Significant, interval.Lower, interval.Upper, margin)
		}
		return
	}
	if math.Abs(*c.PValue-0.05) > 1e-9 && (*c.PValue <= 0.05) != excludes {
		t.Errorf("p %v, but the interval excludes %v: %t (%s)", *c.PValue, margin, excludes, sentence(c, "it", "", stats.Absolute))
	}
	if c.AdjustedPValue == nil && c.Significant != (*c.PValue <= 0.05) {
		t.Errorf("significant %t at p = %v", c.Significant, *c.PValue)
	}
}
