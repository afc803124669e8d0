package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"

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

// printGroups writes the lowest and the highest figure of each group and method.
func printGroups(w io.Writer, cells []calibration.Cell, results []calibration.Result) {
	const columns = 5
	type row struct {
		cells  int
		ranges [columns]extremes
	}
	var names []string
	rows := map[string]*row{}
	for i := range cells {
		for k := range results[i].Counts {
			counts := &results[i].Counts[k]
			name := cells[i].Group + " | " + counts.Method
			if rows[name] == nil {
				rows[name] = new(row)
				names = append(names, name)
			}
			r, e := rows[name], &counts.Effect
			r.cells++
			lift := e.LiftCovered()
			for column, rate := range [columns]calibration.Rate{
				cells[i].FalsePositives(counts), e.Covered(), lift, {Count: e.LiftBelow, Of: lift.Of}, {Count: e.LiftAbove, Of: lift.Of},
			} {
				r.ranges[column].take(rate)
			}
		}
	}
	fmt.Fprintf(w, "\nThe lowest and the highest figure of each group:\n\n")
	fmt.Fprintln(w, "| group | method | cells | false positives | covered | lift covered | lift below | lift above |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	for _, name := range names {
		fmt.Fprintf(w, "| %s | %d |", name, rows[name].cells)
		for _, x := range rows[name].ranges {
			fmt.Fprintf(w, " %s |", x)
		}
		fmt.Fprintln(w)
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

func (x extremes) String() string {
	if !x.some {
		return ""
	}
	return fmt.Sprintf("%.1f to %.1f", 100*x.low, 100*x.high)
}
