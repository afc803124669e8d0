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

// BenchmarkAssign measures one decision of a prepared subject.
func BenchmarkAssign(b *testing.B) {
	for _, c := range []struct{ name, rule string }{{"no rule", ""}, {"one rule", benchmarkRule}} {
		b.Run(c.name, func(b *testing.B) {
			catalog := catalogOf(b, running("e", 1, 1).with(func(d *experiment.Definition) { d.Eligibility = c.rule }))
			subject := catalog.Subject("user", "u-1", benchmarkAttributes)
			b.ReportAllocs()
			for b.Loop() {
				if subject.Assign("e").Reason != ReasonSplit {
					b.Fatal("not assigned")
				}
			}
		})
	}
}

// BenchmarkCall measures a whole call: a subject, the conversion of its
// attributes if there are rules, and its decisions.
func BenchmarkCall(b *testing.B) {
	for _, rule := range []string{"", benchmarkRule} {
		for _, n := range []int{1, 100} {
			b.Run(fmt.Sprintf("%d experiments, rule %t", n, rule != ""), func(b *testing.B) {
				catalog := NewCatalog(pepper)
				for i := range n {
					catalog = catalog.With(compile(b, running(fmt.Sprint("e", i), 1, 1).with(func(d *experiment.Definition) { d.Eligibility = rule })))
				}
				b.ReportAllocs()
				for b.Loop() {
					subject := catalog.Subject("user", "u-1", benchmarkAttributes)
					list, _ := catalog.Running("user", nil)
					for _, e := range list {
						subject.Decide(e)
					}
				}
			})
		}
	}
}

// BenchmarkAssignBesideEval alternates between decisions with one rule and bare
// evaluations of the same rule over values in CEL's own types, and reports the
// ratio of their times.
func BenchmarkAssignBesideEval(b *testing.B) {
	env, err := predicateEnv()
	if err != nil {
		b.Fatal(err)
	}
	checked, issues := env.Compile(benchmarkRule)
	if issues.Err() != nil {
		b.Fatal(issues.Err())
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize))
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
	catalog := catalogOf(b, running("e", 1, 1).with(func(d *experiment.Definition) { d.Eligibility = benchmarkRule }))
	subject := catalog.Subject("user", "u-1", benchmarkAttributes)
	if out, _, err := program.Eval(bare); err != nil || out != types.True || subject.Assign("e").Reason != ReasonSplit {
		b.Fatal("the rule does not hold: ", out, err)
	}

	// Turns are short, and the fastest of each side counts: what else the machine
	// does only ever adds time.
	const turn = 200
	ours, theirs := time.Hour, time.Hour
	for b.Loop() {
		began := time.Now()
		for range turn {
			subject.Assign("e")
		}
		switched := time.Now()
		for range turn {
			program.Eval(bare)
		}
		theirs = min(theirs, time.Since(switched))
		ours = min(ours, switched.Sub(began))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours)/turn, "ns/assign")
	b.ReportMetric(float64(theirs)/turn, "ns/eval")
	b.ReportMetric(float64(ours)/float64(theirs), "assign/eval")
}
