package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/stats"
)

// demoMethod is a way to judge the same figures.
type demoMethod struct {
	name        string
	plan        *assayv1.Plan
	looks       []float64
	alternative assayv1.Alternative
	margin      *assayv1.Shift
}

// demoMethods are the methods that the demonstration shows side by side.
var demoMethods = []demoMethod{
	{name: "fixed horizon", plan: &assayv1.Plan{Method: assayv1.Method_METHOD_FIXED_HORIZON}},
	{name: "always valid", plan: &assayv1.Plan{Method: assayv1.Method_METHOD_ALWAYS_VALID, PlannedSubjects: 64_000}},
	{name: "group sequential, last of 3 looks", looks: []float64{1.0 / 3, 2.0 / 3, 1},
		plan: &assayv1.Plan{Method: assayv1.Method_METHOD_GROUP_SEQUENTIAL, PlannedSubjects: 64_000}},
	{name: "the same, spending as Pocock", looks: []float64{1.0 / 3, 2.0 / 3, 1},
		plan: &assayv1.Plan{Method: assayv1.Method_METHOD_GROUP_SEQUENTIAL, PlannedSubjects: 64_000, Spending: assayv1.Spending_SPENDING_POCOCK}},
	{name: "Bayesian, flat prior", plan: &assayv1.Plan{Method: assayv1.Method_METHOD_BAYESIAN}},
	{name: "Bayesian, lift N(0, 0.3)",
		plan: &assayv1.Plan{Method: assayv1.Method_METHOD_BAYESIAN, Prior: &assayv1.Prior{LiftStandardDeviation: new(0.3)}}},
	{name: "not worse by 0.1, one-sided", plan: &assayv1.Plan{Method: assayv1.Method_METHOD_FIXED_HORIZON},
		alternative: assayv1.Alternative_ALTERNATIVE_GREATER, margin: absoluteShift(-0.1)},
	{name: "equivalent within 1", plan: &assayv1.Plan{Method: assayv1.Method_METHOD_FIXED_HORIZON},
		alternative: assayv1.Alternative_ALTERNATIVE_EQUIVALENT, margin: absoluteShift(1)},
}

func absoluteShift(by float64) *assayv1.Shift {
	return &assayv1.Shift{Scale: &assayv1.Shift_Absolute{Absolute: by}}
}

// printMethods judges what the customers spent by every method, from means and
// covariances alone, as a client that keeps its own data would.
func (d *demo) printMethods(ctx context.Context, w io.Writer) error {
	arms, err := summariseSpend()
	if err != nil {
		return err
	}
	fmt.Fprint(w, "\nThe same by every method, from the means and covariances of spend and history alone (CompareSummaries):\n\n")
	var t table
	t.row("mens against none", "difference", "from", "to", "p", "chance to win", "expected loss", "significant")
	for _, m := range demoMethods {
		resp, err := d.analysis.CompareSummaries(ctx, &assayv1.CompareSummariesRequest{
			Components: []string{"spend", "history"}, Covariates: []string{"history"}, Arms: arms,
			Plan: m.plan, Looks: m.looks, Alternative: m.alternative, Margin: m.margin,
		})
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		c := resp.GetComparisons()[0]
		difference := c.GetDifference()
		t.row(m.name, figure(difference.Estimate), figure(difference.Lower), figure(difference.Upper),
			pValue(c.PValue), figure(c.ChanceToWin), figure(c.ExpectedLoss), yesNo(c.GetSignificant()))
	}
	t.print(w, "  ")
	return nil
}

// summariseSpend reads the embedded customers and returns the moments of what
// they spent after the e-mail and in the year before, by variant.
func summariseSpend() ([]*assayv1.SummaryArm, error) {
	m, data, err := demoCustomers()
	if err != nil {
		return nil, err
	}
	rows, err := openCSV(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	header, err := rows.Read()
	if err != nil {
		return nil, err
	}
	conv, err := m.compile(slices.Clone(header))
	if err != nil {
		return nil, err
	}
	moments := map[string]*stats.Moments{}
	for {
		fields, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return summaryArms(moments), nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := rows.FieldPos(0)
		exposure, outcomes, err := conv.convert(row{line, fields})
		if err != nil {
			return nil, err
		}
		customer := []float64{0, exposure.GetSubject().GetAttributes().GetFields()["history"].GetNumberValue()}
		for _, o := range outcomes {
			if o.GetName() == "spend" {
				customer[0] += o.GetValue()
			}
		}
		if moments[exposure.GetVariant()] == nil {
			moments[exposure.GetVariant()] = new(stats.NewMoments(2))
		}
		moments[exposure.GetVariant()].Add(customer)
	}
}

// summaryArms is moments as a request for CompareSummaries holds them.
func summaryArms(moments map[string]*stats.Moments) []*assayv1.SummaryArm {
	var arms []*assayv1.SummaryArm
	for _, variant := range []string{"none", "mens", "womens"} {
		m := moments[variant]
		stratum := &assayv1.SummaryStratum{Subjects: m.N, Means: m.Means, NonzeroSubjects: m.NonZero, NegativeSubjects: m.Negative}
		for i := range m.Means {
			for j := i; j < len(m.Means); j++ {
				covariance, _ := m.Covariance(i, j)
				stratum.Covariances = append(stratum.Covariances, covariance)
			}
		}
		arms = append(arms, &assayv1.SummaryArm{Variant: variant, Control: variant == "none", Strata: []*assayv1.SummaryStratum{stratum}})
	}
	return arms
}
