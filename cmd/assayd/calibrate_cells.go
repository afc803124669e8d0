package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/assayhq/assay/internal/calibration"
)

// longForm is the flags of the long form.
type longForm struct {
	runs           int
	cells, results string
}

// run tries the cells that were asked for and prints them, with a line for each as
// it is done.
func (l longForm) run(ctx context.Context, seed uint64, e env) error {
	if l.runs < 1 {
		return errors.New("the long form takes --runs, of 1 or more")
	}
	wanted, err := regexp.Compile(l.cells)
	if err != nil {
		return fmt.Errorf("--cells: %w", err)
	}
	file, err := calibration.OpenFile(l.results)
	if err != nil {
		return err
	}
	var cells []calibration.Cell
	for _, c := range calibration.Cells() {
		if wanted.MatchString(c.Name()) {
			cells = append(cells, c)
		}
	}
	if len(cells) == 0 {
		return fmt.Errorf("--cells: no cell is called like %q", l.cells)
	}
	var results []calibration.Result
	var broken []string
	seconds := 0.0
	for i := range cells {
		r, known, err := file.Try(ctx, &cells[i], l.runs, seed)
		if err != nil {
			return err
		}
		how := fmt.Sprintf("%.1f s", r.Seconds)
		if known {
			how = "known"
		}
		fmt.Fprintf(e.stdout, "%d of %d: %s: %s\n", i+1, len(cells), r.Cell, how)
		seconds += r.Seconds
		results = append(results, r)
		broken = append(broken, cells[i].Broken(&r)...)
	}
	fmt.Fprintf(e.stdout, "\n%s experiments without an effect and as many with one in each of %d cells, seed %d, in %.0f seconds. All figures are in per cent.\n",
		thousands(int64(l.runs)), len(cells), seed, seconds)
	fmt.Fprintln(e.stdout, "Missed below: the truth lies below an interval; above: above it. What has no interval misses nothing; * marks what is not held to a promise.")
	printCells(e.stdout, cells, results)
	printGroups(e.stdout, cells, results)
	if len(broken) == 0 {
		return nil
	}
	fmt.Fprintf(e.stdout, "\nBroken beyond chance:\n")
	for _, b := range broken {
		fmt.Fprintf(e.stdout, "  %s\n", b)
	}
	return fmt.Errorf("%d promises are broken beyond chance", len(broken))
}

// printCells writes a table for each group.
func printCells(w io.Writer, cells []calibration.Cell, results []calibration.Result) {
	var t table
	for i := range cells {
		c := &cells[i]
		if i == 0 || c.Group != cells[i-1].Group {
			t.print(w, "  ")
			t = table{}
			fmt.Fprintf(w, "\n%s\n", c.Group)
			for _, promise := range promised(cells[i:]) {
				fmt.Fprintf(w, "  promised: %s\n", promise)
			}
			t.row("", "", "false positives", "found", "wrong sign", "shown", "covered", "below", "above", "lift shown", "covered", "below", "above", "unbounded")
		}
		for k := range results[i].Counts {
			counts, promise := &results[i].Counts[k], c.Methods[k].Promise
			e := &counts.Effect
			of := func(count int) string { return shareOf(calibration.Rate{Count: count, Of: e.Runs}, true) }
			t.row(c.Design, counts.Method, shareOf(c.FalsePositives(counts), promise.FalsePositives > 0),
				of(e.Found), shareOf(calibration.Rate{Count: e.Wrong, Of: e.Runs}, promise.Wrong > 0), of(e.Shown), shareOf(e.Covered(), promise.Coverage > 0), of(e.Below), of(e.Above),
				of(e.LiftShown), shareOf(e.LiftCovered(), promise.Lift > 0), of(e.LiftBelow), of(e.LiftAbove), of(e.Unbounded))
		}
	}
	t.print(w, "  ")
}

// promised lists what is promised in the group of the first cell.
func promised(cells []calibration.Cell) (list []string) {
	for i := range cells {
		if cells[i].Group != cells[0].Group {
			break
		}
		for _, m := range cells[i].Methods {
			if text := m.Promise.String(); !slices.Contains(list, text) {
				list = append(list, text)
			}
		}
	}
	return list
}

// shareOf is a share in per cent, marked if it is not held to anything.
func shareOf(r calibration.Rate, held bool) string {
	if r.Of == 0 {
		return absent
	}
	text := strconv.FormatFloat(100*r.Share(), 'f', 1, 64)
	if !held {
		text += "*"
	}
	return text
}

// printGroups writes a row for each group with the lowest and the highest figure:
// false positives by method, the others of all methods.
func printGroups(w io.Writer, cells []calibration.Cell, results []calibration.Result) {
	type group struct {
		name                        string
		cells                       int
		false                       map[string]*extremes // By the method's first words.
		covered, lift, below, above extremes
	}
	var groups []*group
	var families []string
	for i := range cells {
		if i == 0 || cells[i].Group != cells[i-1].Group {
			groups = append(groups, &group{name: cells[i].Group, false: map[string]*extremes{}})
		}
		g := groups[len(groups)-1]
		g.cells++
		for k := range results[i].Counts {
			counts := &results[i].Counts[k]
			family, _, _ := strings.Cut(counts.Method, ",")
			if !slices.Contains(families, family) {
				families = append(families, family)
			}
			if g.false[family] == nil {
				g.false[family] = new(extremes)
			}
			e := &counts.Effect
			lift := e.LiftCovered()
			g.false[family].take(cells[i].FalsePositives(counts))
			g.covered.take(e.Covered())
			g.lift.take(lift)
			g.below.take(calibration.Rate{Count: e.LiftBelow, Of: lift.Of})
			g.above.take(calibration.Rate{Count: e.LiftAbove, Of: lift.Of})
		}
	}
	fmt.Fprintf(w, "\nThe lowest and the highest of each group, false positives by method:\n\n")
	fmt.Fprintf(w, "| | cells | %s | covered | lift covered | lift below | lift above |\n", strings.Join(families, " | "))
	fmt.Fprintln(w, "|---|"+strings.Repeat("---|", len(families)+5))
	for _, g := range groups {
		columns := []string{g.name, strconv.Itoa(g.cells)}
		for _, family := range families {
			columns = append(columns, g.false[family].String())
		}
		columns = append(columns, g.covered.String(), g.lift.String(), g.below.String(), g.above.String())
		fmt.Fprintf(w, "| %s |\n", strings.Join(columns, " | "))
	}
}

// extremes are the lowest and the highest of some shares.
type extremes struct {
	some      bool
	low, high float64
}

func (x *extremes) take(r calibration.Rate) {
	if r.Of == 0 {
		return
	}
	share := r.Share()
	if !x.some {
		*x = extremes{true, share, share}
	}
	x.low, x.high = min(x.low, share), max(x.high, share)
}

func (x *extremes) String() string {
	if x == nil || !x.some {
		return ""
	}
	return fmt.Sprintf("%.1f to %.1f", 100*x.low, 100*x.high)
}
