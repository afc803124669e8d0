package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"

	"github.com/assayhq/assay/internal/calibration"
)

// runCalibrate simulates experiments and prints how often each method was wrong: in
// the short form on a few metrics, in the long form on all designs. A promise that
// was broken beyond chance is an error, after the table.
func runCalibrate(ctx context.Context, args []string, e env) error {
	c := calibration.Config{}
	flags := flag.NewFlagSet("calibrate", flag.ContinueOnError)
	flags.IntVar(&c.Experiments, "experiments", 2_000, "simulated experiments for each metric, half of them with an effect")
	flags.IntVar(&c.Subjects, "subjects", 4_000, "subjects of an experiment")
	flags.Float64Var(&c.Share, "share", 0.5, "the treatment's share of the subjects, 0.01 to 0.99")
	flags.Uint64Var(&c.Seed, "seed", 1, "what the simulation starts from; the same seed gives the same table")
	long := longForm{}
	flags.IntVar(&long.runs, "runs", 0, "the long form: so many experiments without an effect, and as many with one, in each of its cells")
	flags.StringVar(&long.cells, "cells", "", "of the long form: a regular expression for the names of the cells to try")
	flags.StringVar(&long.results, "results", "", "of the long form: a file to which results are appended, and whose cells of the same seed and runs are not tried again; methods that changed need another file")
	if err := parseFlags(flags, args, "assayd calibrate [FLAGS]", e); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if long != (longForm{}) {
		return long.run(ctx, c.Seed, e)
	}
	if c.Experiments < 2 || c.Subjects < 100 {
		return errors.New("it takes 2 experiments and 100 subjects or more")
	}
	if !(c.Share >= 0.01 && c.Share <= 0.99) {
		return errors.New("the treatment's share lies between 0.01 and 0.99")
	}
	rows, err := calibration.Run(ctx, c)
	if err != nil {
		return err
	}
	printCalibration(e.stdout, c, rows)
	return brokenPromises(rows)
}

func brokenPromises(rows []calibration.Row) error {
	var broken []error
	for i := range rows {
		if how := rows[i].Broken(); how != "" {
			r := &rows[i]
			broken = append(broken, fmt.Errorf("%s, looks %s, on the %s: %s", r.Method, r.Looks, metricName(r), how))
		}
	}
	return errors.Join(broken...)
}

func metricName(r *calibration.Row) string {
	if r.Covariates {
		return r.Metric + " with covariates"
	}
	return r.Metric
}

// printCalibration writes a table for each metric.
func printCalibration(w io.Writer, c calibration.Config, rows []calibration.Row) {
	fmt.Fprintf(w, "%s simulated experiments of %s subjects for each metric, half of them with an effect, %s in the treatment; error rate 5 %%, seed %d.\n",
		thousands(int64(c.Experiments)), thousands(int64(c.Subjects)), percent(c.Share), c.Seed)
	fmt.Fprintln(w, "Brackets are binomial intervals of 95 %.")
	metric := ""
	var t table
	flush := func() {
		if len(t.rows) > 0 {
			fmt.Fprintf(w, "\n%s\n", metric)
			t.print(w, "  ")
		}
		t = table{}
	}
	for i := range rows {
		r := &rows[i]
		if name := metricName(r); name != metric {
			flush()
			metric = name
			t.row("", "looks", "false positives", "coverage", "power", "bias")
		}
		bias := absent
		if r.BiasError > 0 {
			bias = fmt.Sprintf("%+.1f ± %.1f %%", 100*r.Bias, 196*r.BiasError)
		}
		t.row(r.Method, string(r.Looks), rate(r.FalsePositives), rate(r.Coverage), rate(r.Power), bias)
	}
	flush()
}

func rate(r calibration.Rate) string {
	if r.Of == 0 {
		return absent
	}
	lower, upper := r.Interval(0.95)
	decimal := func(x float64) string { return strconv.FormatFloat(100*x, 'f', 2, 64) }
	return fmt.Sprintf("%s %% [%s, %s]", decimal(r.Share()), decimal(lower), decimal(upper))
}
