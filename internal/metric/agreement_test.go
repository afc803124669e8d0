package metric

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// objectives are all that can be asked of a metric, with margins for numbers around 3
// that the data of the tests below come near to.
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

// An audience is a kind of data.
type audience struct {
	name              string
	metric            Definition
	scale             float64 // Of absolute margins: 1 for numbers around 3.
	covariate, strata bool
	seeds             []uint64
	subjects, days    int // Days lie between analyses.
	// numbers are those of a subject. The effect is on its arm, and past is what was
	// known of it before.
	numbers func(r *rand.Rand, treated bool, past, effect float64) []float64
}

var (
	proportion = Proportion("purchase", nil)
	amount     = Sum("purchase", nil)
	perOrder   = Ratio(sum("total", "purchase"), experiment.Component{Name: "orders", Outcome: "purchase", Aggregate: experiment.AggregateCount})
	amounts    = func(r *rand.Rand, _ bool, past, effect float64) []float64 {
		return []float64{3 + past + 1.5*r.NormFloat64() + effect}
	}
	orders = func(r *rand.Rand, _ bool, _, effect float64) []float64 { // Of a third of the subjects.
		n := happens(r, 1./3) * float64(1+r.IntN(3))
		return []float64{n * (3 + effect + r.NormFloat64()), n}
	}
	buyers = func(r *rand.Rand, _ bool, past, effect float64) []float64 {
		return []float64{happens(r, 0.03*(1+effect)) * (10 + 2*past + r.NormFloat64())}
	}
)

var audiences = []audience{
	{"numbers", amount, 1, true, false, []uint64{0, 1, 2, 3}, 400, 4, amounts},
	{"numbers in strata", amount, 1, false, true, []uint64{0, 3}, 400, 6, amounts},
	{"rates", proportion, 0.15, false, false, []uint64{0, 3}, 1600, 12, rate(0.25)},
	{"rates with a covariate", proportion, 0.15, true, false, []uint64{0, 3}, 1600, 12, rate(0.25)},
	{"rates in strata", proportion, 0.15, false, true, []uint64{0, 3}, 1600, 12, rate(0.25)},
	{"rare rates", proportion, 0.1, false, false, []uint64{0, 3}, 800, 6, rate(0.006)},
	{"ratios", perOrder, 1, false, false, []uint64{0, 3}, 800, 12, orders},
	{"ratios in strata", perOrder, 1, false, true, []uint64{0, 3}, 800, 12, orders},
	{"few buyers", amount, 1, false, false, []uint64{0, 3}, 3000, 12, buyers},
	{"few buyers with a covariate", amount, 1, true, false, []uint64{0, 3}, 3000, 12, buyers},
	{"the rate of a silent arm", proportion, 0.2, false, false, []uint64{0}, 600, 6, silence(0.1, 1)},
	{"the numbers of a silent arm", amount, 1, false, false, []uint64{0}, 600, 6, silence(0.1, 10)},
}

// happens is 1 with a probability.
func happens(r *rand.Rand, p float64) float64 {
	if r.Float64() < p {
		return 1
	}
	return 0
}

func rate(base float64) func(r *rand.Rand, treated bool, past, effect float64) []float64 {
	return func(r *rand.Rand, _ bool, past, effect float64) []float64 {
		return []float64{happens(r, base*(1+effect/2+past/4))}
	}
}

// silence is of a treatment in which nobody has what a share of the control has, up to
// so much of it.
func silence(share, most float64) func(r *rand.Rand, treated bool, past, effect float64) []float64 {
	return func(r *rand.Rand, treated bool, _, _ float64) []float64 {
		if treated {
			return []float64{0}
		}
		return []float64{happens(r, share) * (1 + (most-1)*r.Float64())}
	}
}

// visitors are an audience's subjects, of 40 days in two phases, with an effect that
// fades and turns around.
func (a *audience) visitors(seed uint64) []Row {
	r := rand.New(rand.NewPCG(seed, 17))
	early := []float64{1.5, -1.5, 0.4, 0}[seed%4]
	rows := make([]Row, a.subjects)
	for i := range rows {
		treated, day, past := r.IntN(2), r.IntN(40), r.NormFloat64()
		effect := early * (1 - float64(day)/25)
		rows[i] = row([]string{"control", "short"}[treated], a.numbers(r, treated == 1, past, effect*float64(treated))...)
		rows[i].Phase = int32(1 + day/20)
		rows[i].AttributeNumbers = []float64{past}
		rows[i].Stratum = []byte([]string{"phone", "desktop", "tablet"}[r.IntN(12)/5])
		rows[i].FirstExposure = moment.Add(-week).AddDate(0, 0, day-40).Add(time.Duration(r.Int64N(int64(24 * time.Hour))))
	}
	return rows
}

// enough is how many intervals of an audience are compared by each method that exclude
// the margin, and that do not, at least.
const enough = 10

// TestIntervalsAgreeWithPValues follows experiments from day to day. At every moment,
// for every kind of data, objective and method, the p-value that is not corrected is at
// most 5 % exactly when the interval that is shown excludes the margin, and both say
// what `significant` says.
func TestIntervalsAgreeWithPValues(t *testing.T) {
	for i := range audiences {
		of := &audiences[i]
		visits := make([][]Row, len(of.seeds))
		for k, seed := range of.seeds {
			visits[k] = of.visitors(seed)
		}
		for _, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid, experiment.MethodGroupSequential, experiment.MethodBayesian} {
			seen := map[bool]int{}
			for _, asked := range objectives {
				before := maps.Clone(seen)
				for _, direction := range []Direction{DirectionIncrease, DirectionDecrease} {
					t.Run(fmt.Sprint(of.name, " ", method, " ", asked.name, " ", direction), func(t *testing.T) {
						d, measured := of.plan(method)
						measured.Metric.Definition.Direction = direction
						measured.Role, measured.Objective, measured.Margin = asked.role, asked.objective, asked.margin
						if m := asked.margin; m != nil && !m.Relative {
							measured.Margin = &experiment.Magnitude{Value: of.scale * m.Value}
						}
						uses := []Use{measured}
						if asked.role == experiment.RoleGuardrail { // A plan with looks has a primary metric.
							first := measured
							first.Metric.Key, first.Role, first.Objective, first.Margin = "first", experiment.RolePrimary, "", nil
							uses = append(uses, first)
						}
						for _, rows := range visits {
							for _, c := range everyDay(t, mustStudy(t, d, uses), rows, of.days) {
								agree(t, &c, &measured, method, seen)
							}
						}
					})
				}
				if i == 0 && (seen[true] == before[true] || seen[false] == before[false]) {
					t.Errorf("%s, %s: not both of intervals that exclude the margin and that do not: the data are not what this test needs", method, asked.name)
				}
			}
			if seen[true] < enough || seen[false] < enough {
				t.Errorf("%s, %s: intervals exclude the margin %d times, and do not %d times: the data are not what this test needs", of.name, method, seen[true], seen[false])
			}
		}
	}
}

// plan is an experiment that watches the audience's metric.
func (a *audience) plan(method experiment.Method) (*experiment.Definition, Use) {
	d, measured := watched()
	if a.covariate {
		d, measured = watched("spend")
	}
	if a.strata {
		d.Plan.StratifyBy = "device"
	}
	d.Plan.Method, d.Plan.Correction, d.Plan.Spending = method, experiment.CorrectionHolm, experiment.SpendingOBrienFleming
	measured.Metric.Definition = a.metric
	measured.Metric.Definition.Window = week
	return d, measured
}

// everyDay analyses subjects at the end of every few days, and returns the
// comparisons of the last metric.
func everyDay(t *testing.T, s *Study, rows []Row, step int) (all []Comparison) {
	var looks []Look
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
// near to the margin as rounding. Bayesian intervals have no p-value but, on one side,
// the chance of being right. Where so few subjects inform that it is told only whether a
// margin is kept, they have none, and no interval has a bound on the other side.
func agree(t *testing.T, c *Comparison, of *Use, method experiment.Method, seen map[bool]int) {
	t.Helper()
	direction := of.Metric.Definition.Direction
	interval, margin := c.Difference, 0.0
	if m := of.Margin; m != nil {
		margin = m.Value
		if m.Relative {
			interval = c.Lift
		}
		if of.Objective == experiment.ObjectiveNonInferiority {
			margin *= -direction.sign()
		}
	}
	if interval.Lower == nil && interval.Upper == nil {
		if c.Significant || c.PValue != nil && *c.PValue <= 0.05 {
			t.Errorf("significant %t without an interval, notes %q", c.Significant, c.Notes)
		}
		return
	}
	low, high := interval.Lower != nil && *interval.Lower >= margin, interval.Upper != nil && *interval.Upper <= margin
	excludes := low || high
	oneSided := false
	switch of.Objective {
	case experiment.ObjectiveEquivalence:
		excludes = interval.Lower != nil && interval.Upper != nil && *interval.Lower >= -margin && *interval.Upper <= margin
	case experiment.ObjectiveSuperiority, experiment.ObjectiveNonInferiority:
		oneSided = of.Role != experiment.RoleGuardrail
	}
	if oneSided && (interval.Lower != nil) != (direction == DirectionIncrease) {
		t.Errorf("a one-sided interval has the bound of the other side: %+v", interval)
	}
	few := strings.Contains(strings.Join(c.Notes, " "), "told only whether the margin is kept")
	if few && of.Role == experiment.RoleGuardrail && ((interval.Lower != nil) != (direction == DirectionIncrease) || (interval.Upper != nil) != (direction == DirectionDecrease)) {
		t.Errorf("few subjects inform, and the interval is %+v", interval)
	}
	if chance := c.ChanceToWin; few && chance != nil {
		t.Errorf("few subjects inform, and the chance is %v", *chance)
	}
	seen[excludes]++
	if c.AdjustedPValue == nil && c.Significant != excludes {
		t.Errorf("significant %t, interval %v to %v of %v", c.Significant, interval.Lower, interval.Upper, margin)
	}
	switch {
	case method == experiment.MethodBayesian:
		if c.PValue != nil {
			t.Errorf("a Bayesian p-value of %v", *c.PValue)
		}
		if chance := c.ChanceToWin; oneSided && chance != nil && math.Abs(*chance-0.95) > 1e-9 && (*chance >= 0.95) != excludes {
			t.Errorf("a chance of %v, but the interval excludes %v: %t", *chance, margin, excludes)
		}
	case c.PValue == nil:
		t.Errorf("an interval without a p-value: %+v, notes %q", interval, c.Notes)
	case math.Abs(*c.PValue-0.05) > 1e-9 && (*c.PValue <= 0.05) != excludes:
		t.Errorf("p %v, but the interval excludes %v: %t (%s)", *c.PValue, margin, excludes, sentence(c, "it", "", stats.Absolute))
	}
}
