package assign

import (
	"fmt"
	"testing"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/assayhq/assay/internal/experiment"
)

const benchmarkRule = "attributes.country == 'PL' && attributes.age >= 18"

var benchmarkAttributes = map[string]any{"country": "PL", "age": 31.0, "plan": "pro"}

// otherRule says what benchmarkRule says in a shape that CEL's evaluator decides.
const otherRule = "attributes.country == 'PL' && attributes.age - 18.0 >= 0.0"

// turn is how often one side of a comparison runs before the other one does.
// Turns are short, and the fastest of each side counts: what else the machine
// does only ever adds time.
const turn = 200

// alternate runs both sides by turns, and reports the time of each and their
// ratio.
func alternate(b *testing.B, name string, ours func(), other string, theirs func()) {
	b.Helper()
	x, y := time.Hour, time.Hour
	for b.Loop() {
		began := time.Now()
		for range turn {
			ours()
		}
		switched := time.Now()
		for range turn {
			theirs()
		}
		y = min(y, time.Since(switched))
		x = min(x, switched.Sub(began))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(x.Nanoseconds())/turn, "ns/"+name)
	b.ReportMetric(float64(y.Nanoseconds())/turn, "ns/"+other)
	b.ReportMetric(float64(x)/float64(y), name+"/"+other)
}

// BenchmarkAssign compares one decision of a prepared subject without a rule
// with the least that any decision can cost: one finaliser and the search of a
// range, over hashes that are known. The experiment is found by its key, or
// known.
func BenchmarkAssign(b *testing.B) {
	catalog := catalogOf(b, running("e", 1, 1))
	subject, e := catalog.Subject("user", "u-1", benchmarkAttributes, day(3)), catalog.Experiment("e")
	if allocations := testing.AllocsPerRun(100, func() { subject.Assign("e") }); allocations != 0 {
		b.Errorf("%v allocations", allocations)
	}
	sink := 0
	floor := func() { sink += e.current.ranges[e.current.find(bucketOf(mix(subject.hash, e.current.hash)))].variant }
	b.Run("by key", func(b *testing.B) {
		alternate(b, "assign", func() { sink += subject.Assign("e").Variant }, "floor", floor)
	})
	b.Run("known", func(b *testing.B) {
		alternate(b, "decide", func() { sink += subject.Decide(e).Variant }, "floor", floor)
	})
}

// BenchmarkCall measures a whole call: a subject and its decisions in a number
// of experiments, whose price must not grow with the number.
func BenchmarkCall(b *testing.B) {
	for _, c := range []struct{ name, rule string }{{"no rule", ""}, {"one rule", benchmarkRule}, {"one rule for CEL", otherRule}} {
		for _, n := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%s, %d experiments", c.name, n), func(b *testing.B) {
				compiled := make([]*Experiment, n)
				for i := range compiled {
					compiled[i] = compile(b, running(fmt.Sprint("e", i), 1, 1).with(func(d *experiment.Definition) { d.Eligibility = c.rule }))
				}
				catalog := NewCatalog(pepper).With(compiled...)
				b.ReportAllocs()
				for b.Loop() {
					subject := catalog.Subject("user", "u-1", benchmarkAttributes, day(3))
					list, _ := catalog.Running("user", nil)
					for _, e := range list {
						subject.Decide(e)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/experiment")
			})
		}
	}
}

// BenchmarkAssignBesideEval compares decisions with one rule with bare
// evaluations of the same rule over values in CEL's own types.
func BenchmarkAssignBesideEval(b *testing.B) {
	env, err := predicateEnv()
	if err != nil {
		b.Fatal(err)
	}
	bare, err := cel.NewActivation(map[string]any{
		"attributes": map[string]any{"country": types.String("PL"), "age": types.Double(31), "plan": types.String("pro")},
		"unit":       types.String("user"),
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ name, rule string }{{"common shape", benchmarkRule}, {"other shape", otherRule}} {
		b.Run(c.name, func(b *testing.B) {
			checked, issues := env.Compile(c.rule)
			if issues.Err() != nil {
				b.Fatal(issues.Err())
			}
			program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize))
			if err != nil {
				b.Fatal(err)
			}
			catalog := catalogOf(b, running("e", 1, 1).with(func(d *experiment.Definition) { d.Eligibility = c.rule }))
			subject := catalog.Subject("user", "u-1", benchmarkAttributes, day(3))
			if out, _, err := program.Eval(bare); err != nil || out != types.True || subject.Assign("e").Reason != ReasonSplit {
				b.Fatal("the rule does not hold: ", out, err)
			}
			alternate(b, "assign", func() { subject.Assign("e") }, "eval", func() { program.Eval(bare) })
		})
	}
}
