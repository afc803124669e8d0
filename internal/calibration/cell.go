package calibration

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"time"
)

// A Cell is one design that every method named in it is tried on.
type Cell struct {
	// Group is what the cell is told together with, and Design what sets it apart
	// in the group.
	Group, Design string
	// Methods are in the order of the sights of a simulation.
	Methods []Method
	// parts says whether experiments without an effect, and such with one, are
	// tried.
	parts [2]bool
	// atMargin says that the effect is tested against a margin that is just as large,
	// so that whatever is found of it is a false positive.
	atMargin bool
	// start returns a simulation for the use of one goroutine.
	start  func() simulation
	sample *sample // What is simulated, if it is a sample.
}

// Name names the cell, and decides with the seed what is simulated.
func (c *Cell) Name() string { return c.Group + "/" + c.Design }

// A Method is what is tried in a cell, with what it is held to there.
type Method struct {
	Name string
	Promise
}

// methods are several of the same promise.
func methods(promise Promise, names ...string) (list []Method) {
	for _, name := range names {
		list = append(list, Method{name, promise})
	}
	return list
}

// A Promise is what a method is held to. What it leaves 0 is printed and not held.
type Promise struct {
	// FalsePositives is the largest share of the experiments without an effect, or
	// with one at the margin, that are significant at some look.
	FalsePositives float64
	// Coverage is the least share of the experiments with an effect whose
	// intervals of the difference hold it at every look, and Lift the same of the
	// lift. Where no interval is shown, nothing false is said.
	Coverage, Lift float64
	// FromEvents is how many subjects must be expected to inform the metric at the
	// first look, for the coverage of the difference to be held.
	FromEvents int
	// Wrong is the largest share of the experiments with an effect that are
	// significant with the wrong sign, or against their own interval.
	Wrong float64
	// Reason says why it is not more.
	Reason string
}

// String is the promise as a sentence.
func (p Promise) String() string {
	var parts []string
	say := func(share float64, format string) {
		if share > 0 {
			parts = append(parts, fmt.Sprintf(format, 100*share))
		}
	}
	say(p.FalsePositives, "at most %.0f %% false positives")
	say(p.Coverage, "coverage of at least %.0f %%")
	say(p.Lift, "of the lift at least %.0f %%")
	say(p.Wrong, "at most %.0f %% significant with the wrong sign or against the interval")
	if parts == nil {
		parts = []string{"nothing"}
	}
	return strings.Join(parts, ", ") + ": " + p.Reason
}

// simulation simulates one experiment and writes down what each method saw.
type simulation func(rng *rand.Rand, effect bool, seen []sight) error

// sight is what one method saw of one experiment.
type sight struct {
	found                bool // Some look was significant.
	wrong                bool // Some significant look had an estimate of the wrong sign.
	shown, liftShown     bool // Some look had an interval.
	below, above         bool // The difference lay below, or above, the first interval that missed it.
	liftBelow, liftAbove bool
	unbounded            bool // Some interval of the lift lacked a bound.
}

// Sights counts what a method saw.
type Sights struct {
	Runs      int `json:"runs"`
	Found     int `json:"found"`
	Wrong     int `json:"wrong,omitempty"`
	Shown     int `json:"shown"`
	Below     int `json:"below"`
	Above     int `json:"above"`
	LiftShown int `json:"lift_shown"`
	LiftBelow int `json:"lift_below"`
	LiftAbove int `json:"lift_above"`
	Unbounded int `json:"unbounded,omitempty"`
}

func (s *Sights) add(o *sight) {
	s.Runs++
	for _, c := range []struct {
		count *int
		seen  bool
	}{
		{&s.Found, o.found}, {&s.Wrong, o.wrong}, {&s.Shown, o.shown}, {&s.Below, o.below}, {&s.Above, o.above},
		{&s.LiftShown, o.liftShown}, {&s.LiftBelow, o.liftBelow}, {&s.LiftAbove, o.liftAbove},
		{&s.Unbounded, o.unbounded},
	} {
		if c.seen {
			*c.count++
		}
	}
}

func (s *Sights) merge(o *Sights) {
	s.Runs, s.Found, s.Wrong = s.Runs+o.Runs, s.Found+o.Found, s.Wrong+o.Wrong
	s.Shown, s.Below, s.Above = s.Shown+o.Shown, s.Below+o.Below, s.Above+o.Above
	s.LiftShown, s.LiftBelow, s.LiftAbove = s.LiftShown+o.LiftShown, s.LiftBelow+o.LiftBelow, s.LiftAbove+o.LiftAbove
	s.Unbounded += o.Unbounded
}

// Covered is the share of the runs in which no interval of the difference missed it.
func (s *Sights) Covered() Rate { return Rate{s.Runs - s.Below - s.Above, s.Runs} }

// LiftCovered is the same of the lift, and of nothing where no lift was shown.
func (s *Sights) LiftCovered() Rate {
	if s.LiftShown+s.Unbounded == 0 {
		return Rate{}
	}
	return Rate{s.Runs - s.LiftBelow - s.LiftAbove, s.Runs}
}

// Counts is what became of one method in a cell, in its experiments without an
// effect and in those with one.
type Counts struct {
	Method string `json:"method"`
	Null   Sights `json:"null"`
	Effect Sights `json:"effect"`
}

// Result is a cell that was tried. Its JSON form is a line of a file of results.
type Result struct {
	Cell    string   `json:"cell"`
	Seed    uint64   `json:"seed"`
	Runs    int      `json:"runs"`
	Seconds float64  `json:"seconds"`
	Counts  []Counts `json:"counts"`
}

// Try tries a cell on as many experiments without an effect, and as many with
// one, as the runs. Each experiment has a generator of its own, so the counts
// follow from the name, the seed and the runs alone.
func (c *Cell) Try(ctx context.Context, runs int, seed uint64) (Result, error) {
	begun := time.Now()
	workers := make([]struct {
		parts [2][]Sights
		err   error
	}, runtime.GOMAXPROCS(0))
	stream := fnv.New64a()
	fmt.Fprintf(stream, "%d/%s", seed, c.Name())
	var running sync.WaitGroup
	for w := range workers {
		worker := &workers[w]
		for part := range worker.parts {
			worker.parts[part] = make([]Sights, len(c.Methods))
		}
		running.Go(func() {
			try, seen := c.start(), make([]sight, len(c.Methods))
			for i := w; i < 2*runs && worker.err == nil && ctx.Err() == nil; i += len(workers) {
				part := i % 2
				if !c.parts[part] {
					continue
				}
				clear(seen)
				rng := rand.New(rand.NewPCG(stream.Sum64(), uint64(i)))
				worker.err = try(rng, part == 1, seen)
				for m := range seen {
					worker.parts[part][m].add(&seen[m])
				}
			}
		})
	}
	running.Wait()
	r := Result{Cell: c.Name(), Seed: seed, Runs: runs}
	err := ctx.Err()
	for m := range c.Methods {
		counts := Counts{Method: c.Methods[m].Name}
		for w := range workers {
			counts.Null.merge(&workers[w].parts[0][m])
			counts.Effect.merge(&workers[w].parts[1][m])
		}
		r.Counts = append(r.Counts, counts)
	}
	for w := range workers {
		err = errors.Join(err, workers[w].err)
	}
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", c.Name(), err)
	}
	r.Seconds = time.Since(begun).Seconds()
	return r, nil
}

// FalsePositives is the share of the experiments in which the method found what is
// not there.
func (c *Cell) FalsePositives(k *Counts) Rate {
	if c.atMargin {
		return Rate{k.Effect.Found, k.Effect.Runs}
	}
	return Rate{k.Null.Found, k.Null.Runs}
}

// Broken lists the promises that a result breaks beyond chance.
func (c *Cell) Broken(r *Result) []string {
	var broken []string
	held := func(method, what string, wrong Rate, most float64) {
		if wrong.Above(most) {
			broken = append(broken, fmt.Sprintf("%s, %s: %s in %.2f %% of %d, and at most %.0f %% are promised",
				c.Name(), method, what, 100*wrong.Share(), wrong.Of, 100*most))
		}
	}
	for i := range r.Counts {
		k, promise := &r.Counts[i], &c.Methods[i].Promise
		if promise.FalsePositives > 0 {
			held(k.Method, "false positives", c.FalsePositives(k), promise.FalsePositives)
		}
		if promise.Coverage > 0 {
			held(k.Method, "the difference is missed", k.Effect.Covered().missed(), 1-promise.Coverage)
		}
		if promise.Wrong > 0 {
			held(k.Method, "the sign is wrong, or the interval contradicts it,", Rate{k.Effect.Wrong, k.Effect.Runs}, promise.Wrong)
		}
		if promise.Lift > 0 {
			held(k.Method, "the lift is missed", k.Effect.LiftCovered().missed(), 1-promise.Lift)
		}
	}
	return broken
}
