package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/stats"
)

func (s *analysisService) CompareSummaries(ctx context.Context, req *assayv1.CompareSummariesRequest) (*assayv1.CompareSummariesResponse, error) {
	summaries := metric.Summaries{
		Components:  req.Components,
		Formula:     req.Formula,
		Covariates:  req.Covariates,
		Plan:        fromPlan(req.Plan),
		Alternative: alternatives[req.Alternative],
		Margin:      fromShift(req.Margin),
		Looks:       req.Looks,
		Pause:       pause(ctx),
	}
	if req.Plan != nil {
		summaries.Plan.SmallestCell = req.Plan.SmallestCell // The default of it too, if it was asked for.
	}
	for _, arm := range req.Arms {
		a := metric.SummaryArm{Variant: arm.Variant, Control: arm.Control, Weight: arm.Weight}
		for _, st := range arm.Strata {
			a.Strata = append(a.Strata, metric.SummaryStratum{Name: st.Stratum, Subjects: st.Subjects, Means: st.Means, Covariances: st.Covariances, NonZero: st.NonzeroSubjects, Negative: st.NegativeSubjects})
		}
		summaries.Arms = append(summaries.Arms, a)
	}
	result, err := summaries.Compare()
	if err != nil {
		return nil, err
	}
	resp := &assayv1.CompareSummariesResponse{
		Arms:          convert(result.Arms, toArm),
		Comparisons:   convert(result.Comparisons, toComparison),
		Balance:       convert(result.Balance, toBalance),
		Heterogeneity: convert(result.Heterogeneity, toHeterogeneity),
	}
	if result.SampleRatio != nil {
		resp.SampleRatio = toSampleRatio(result.SampleRatio)
	}
	return resp, nil
}

var alternatives = map[assayv1.Alternative]stats.Alternative{
	assayv1.Alternative_ALTERNATIVE_UNSPECIFIED: stats.TwoSided,
	assayv1.Alternative_ALTERNATIVE_TWO_SIDED:   stats.TwoSided,
	assayv1.Alternative_ALTERNATIVE_GREATER:     stats.Greater,
	assayv1.Alternative_ALTERNATIVE_LESS:        stats.Less,
	assayv1.Alternative_ALTERNATIVE_EQUIVALENT:  stats.Equivalent,
}

func fromShift(shift *assayv1.Shift) stats.Margin {
	if relative, ok := shift.GetScale().(*assayv1.Shift_Relative); ok {
		return stats.Margin{Scale: stats.Relative, Value: relative.Relative}
	}
	return stats.Margin{Value: shift.GetAbsolute()}
}

func toAnalysis(a *metric.Analysis) *assayv1.AnalyzeExperimentResponse {
	return &assayv1.AnalyzeExperimentResponse{
		SampleRatio: toSampleRatio(&a.SampleRatio),
		Exclusions:  toExclusions(&a.Exclusions),
		Metrics:     convert(a.Metrics, toMetricAnalysis),
		Balance:     convert(a.Balance, toBalance),
		Verdict:     &assayv1.Verdict{Action: actions.to(a.Verdict.Action), Variant: a.Verdict.Variant, Reasons: a.Verdict.Reasons},
		Warnings:    a.Warnings,
		Deviations:  convert(a.Deviations, toDeviation),

		CountingEndTime: optionalTime(a.CountingEnd), PausedShare: a.PausedShare,
	}
}

func toMetricAnalysis(r *metric.Result) *assayv1.MetricAnalysis {
	return &assayv1.MetricAnalysis{
		Outcomes: convert(r.Outcomes, toOutcomeUse),
		LeftOut: convert(r.LeftOut, func(l *metric.LeftOut) *assayv1.LeftOut {
			return &assayv1.LeftOut{Reason: leftOutReasons.to(l.Reason), Subjects: l.Subjects, Share: l.Share}
		}),
		Metric: r.Metric, MetricRevision: r.Revision, Role: roles.to(r.Role), Objective: objectives.to(r.Objective), Margin: toMagnitude(r.Margin),
		Confirmatory: r.Confirmatory, PeekingProtected: r.PeekingProtected, OpenWindowSubjects: r.OpenWindows, Window: toWindow(r.Window), PausedShare: r.PausedShare,
		Arms:        convert(r.Arms, toArm),
		Comparisons: convert(r.Comparisons, toComparison),
		Segments: convert(r.Segments, func(s *metric.Segment) *assayv1.SegmentResult {
			return &assayv1.SegmentResult{
				Attribute: s.Attribute, Value: s.Value, Rest: s.Rest, Arms: convert(s.Arms, toArm), Comparisons: convert(s.Comparisons, toComparison), Withheld: s.Withheld,
				Exploratory: true,
			}
		}),
		Heterogeneity: convert(r.Heterogeneity, toHeterogeneity),
		Drift:         convert(r.Drift, toHeterogeneity),
		Caps: convert(r.Caps, func(c *metric.Cap) *assayv1.AppliedCap {
			return &assayv1.AppliedCap{Component: c.Component, Lower: c.Lower, Upper: c.Upper, Raised: c.Raised, Lowered: c.Lowered, Notes: c.Notes}
		}),
	}
}

func toOutcomeUse(u *metric.OutcomeUse) *assayv1.OutcomeUse {
	use := &assayv1.OutcomeUse{
		Name: u.Name, Alive: u.Alive, Counted: u.Counted,
		Similar: convert(u.Similar, func(s *metric.SimilarOutcomes) *assayv1.SimilarOutcomes {
			return &assayv1.SimilarOutcomes{Name: s.Name, Unit: s.Unit, Outcomes: s.Outcomes}
		}),
	}
	for _, lack := range u.Lacking {
		use.Lacking = append(use.Lacking, lack.Field)
	}
	for _, reason := range metric.UncountedReasons {
		n := u.NotCounted[reason]
		if n == 0 {
			continue
		}
		uncounted := &assayv1.UncountedOutcomes{Reason: uncountedReasons.to(reason), Outcomes: n}
		if reason == metric.BeforeExposure {
			uncounted.ShortlyBefore = u.ShortlyBefore
		}
		use.NotCounted = append(use.NotCounted, uncounted)
	}
	return use
}

// toWindow is the window of a metric, nil if it has none.
func toWindow(window time.Duration) *durationpb.Duration {
	if window == 0 {
		return nil
	}
	return durationpb.New(window)
}

func toSampleRatio(r *metric.SampleRatio) *assayv1.SampleRatio {
	return &assayv1.SampleRatio{
		Observed: r.Observed, Expected: r.Expected, PValue: r.PValue, Verdict: sampleRatioVerdicts.to(r.Verdict),
		SequentialPValue: r.SequentialPValue, Notes: r.Notes,
		BrokenCells: convert(r.BrokenCells, func(c *metric.SampleRatioCell) *assayv1.SampleRatioCell {
			return &assayv1.SampleRatioCell{
				Attribute: c.Attribute, Value: c.Value, Observed: c.Observed, Expected: c.Expected,
				PValue: c.PValue, AdjustedPValue: c.AdjustedPValue, Notes: c.Notes,
			}
		}),
	}
}

func toExclusions(e *metric.Exclusions) *assayv1.Exclusions {
	return &assayv1.Exclusions{
		Crossovers: e.Crossovers, Overridden: e.Overridden,
		ByReason: convert(e.ByReason, func(e *metric.Exclusion) *assayv1.Exclusion {
			return &assayv1.Exclusion{
				Reason: exclusionReasons.to(e.Reason), Subjects: e.Subjects, Share: e.Share, ByVariant: e.ByVariant, PValue: e.PValue, Notes: e.Notes,
			}
		}),
	}
}

func toBalance(b *metric.Balance) *assayv1.CovariateBalance {
	return &assayv1.CovariateBalance{
		Covariate: b.Covariate, Variant: b.Variant, Missing: b.Missing,
		StandardizedDifference: b.StandardizedDifference, PValue: b.PValue, AdjustedPValue: b.AdjustedPValue, Notes: b.Notes,
	}
}

func toHeterogeneity(h *metric.Heterogeneity) *assayv1.Heterogeneity {
	return &assayv1.Heterogeneity{
		Attribute: h.Attribute, Variant: h.Variant, Statistic: h.Statistic, DegreesOfFreedom: int32(h.DegreesOfFreedom),
		DenominatorDegreesOfFreedom: h.Denominator, PValue: h.PValue, AdjustedPValue: h.AdjustedPValue, Inconsistency: h.Inconsistency, Notes: h.Notes,
	}
}

func toArm(a *metric.Arm) *assayv1.ArmResult {
	return &assayv1.ArmResult{
		Variant: a.Variant, Subjects: a.Subjects, Mean: a.Mean, StandardError: a.StandardError, Total: a.Total, InformativeSubjects: a.Informative, LargestShare: a.LargestShare, Notes: a.Notes,
	}
}

func toComparison(c *metric.Comparison) *assayv1.Comparison {
	p := &assayv1.Comparison{
		Variant: c.Variant, Baseline: c.Baseline,
		Difference: toInterval(c.Difference), Lift: toInterval(c.Lift),
		StandardError: c.StandardError, Statistic: c.Statistic, DegreesOfFreedom: c.DegreesOfFreedom,
		PValue: c.PValue, AdjustedPValue: c.AdjustedPValue, Significant: c.Significant, Boundary: c.Boundary,
		VarianceReduction: c.VarianceReduction, ChanceToWin: c.ChanceToWin, ExpectedLoss: c.ExpectedLoss,
		Guardrail: guardrailVerdicts.to(c.Guardrail), Notes: c.Notes,
	}
	if c.AdjustedDifference != (metric.Interval{}) {
		p.AdjustedDifference = toInterval(c.AdjustedDifference)
	}
	if c.AdjustedLift != (metric.Interval{}) {
		p.AdjustedLift = toInterval(c.AdjustedLift)
	}
	if c.Smallest != nil {
		p.SmallestPValue, p.SmallestPValueDay = &c.Smallest.PValue, c.Smallest.Day.Format(time.DateOnly)
	}
	if c.Unadjusted != nil {
		p.Unadjusted = toComparison(c.Unadjusted)
	}
	return p
}

func toInterval(i metric.Interval) *assayv1.Interval {
	return &assayv1.Interval{Estimate: i.Estimate, Lower: i.Lower, Upper: i.Upper, Unbounded: i.Unbounded}
}

// convert applies f to each item.
func convert[D, P any](items []D, f func(*D) P) []P {
	list := make([]P, len(items))
	for i := range items {
		list[i] = f(&items[i])
	}
	return list
}
