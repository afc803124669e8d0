package server

import (
	"cmp"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// payloadLimits bound a variant's payload.
var payloadLimits = structLimits{bytes: 16 << 10, depth: 32}

// fromExperiment returns the definition of an experiment that keeps the
// schema's rules, with the defaults filled in. With an error, payloads are
// missing in it.
func fromExperiment(p *assayv1.Experiment) (*experiment.Definition, error) {
	def := &experiment.Definition{
		Unit:         unitOf(p.Unit),
		Owner:        p.Owner,
		Description:  p.Description,
		Hypothesis:   experiment.Hypothesis{Statement: p.GetHypothesis().GetStatement(), Null: p.GetHypothesis().GetNullHypothesis()},
		Eligibility:  p.Eligibility,
		Traffic:      1,
		Salt:         p.Salt,
		Layer:        p.Layer,
		Sticky:       p.Sticky,
		IntakeClosed: p.IntakeClosed,
		External:     p.Assignment == assayv1.Experiment_ASSIGNMENT_EXTERNAL,
		Labels:       p.Labels,
		Segments:     p.Segments,
		Plan:         fromPlan(p.Plan),
	}
	if p.Traffic != nil {
		def.Traffic = *p.Traffic
	}
	if def.Salt == "" {
		def.Salt = p.Key
	}
	var bad experiment.InvalidError
	for i, v := range p.Variants {
		payload, err := encodeStruct(v.Payload, payloadLimits)
		if err != nil {
			bad.Add(fmt.Sprintf("variants[%d].payload", i), "%s", err)
		}
		weight := int32(1)
		if v.Weight != nil {
			weight = *v.Weight
		}
		def.Variants = append(def.Variants, experiment.Variant{
			Key: v.Key, Control: v.Control, Weight: weight, Payload: payload, Description: v.Description,
		})
	}
	for _, c := range p.Covariates {
		def.Covariates = append(def.Covariates, fromCovariate(c))
	}
	for _, m := range p.Metrics {
		use := experiment.MetricUse{
			Metric: m.Metric, Role: roles.from(m.Role), Objective: objectives.from(m.Objective),
			Covariates: m.Covariates, Margin: fromMagnitude(m.Margin),
		}
		if use.Objective == use.Role.DefaultObjective() {
			use.Objective = ""
		}
		def.Metrics = append(def.Metrics, use)
	}
	return def, bad.Err()
}

func fromCovariate(c *assayv1.Covariate) experiment.Covariate {
	past := c.GetPastOutcomes()
	if past == nil {
		return experiment.Covariate{Name: c.Name, Attribute: c.GetAttribute()}
	}
	return experiment.Covariate{Name: c.Name, Past: &experiment.PastOutcomes{
		Component: experiment.Component{Outcome: past.Outcome, Aggregate: aggregates.from(past.Aggregate), Conditions: fromConditions(past.Conditions)},
		Window:    past.Window.AsDuration(),
	}}
}

func fromPlan(p *assayv1.Plan) experiment.Plan {
	plan := experiment.Plan{
		Method:          methods.from(p.GetMethod()),
		ConfidenceLevel: experiment.DefaultConfidenceLevel,
		Correction:      corrections.from(p.GetCorrection()),
		MinimumEffect:   fromMagnitude(p.GetMinimumEffect()),
		PlannedSubjects: p.GetPlannedSubjects(),
		StratifyBy:      p.GetStratifyBy(),
		Spending:        spendings.from(p.GetSpending()),
	}
	if plan.Method == experiment.MethodGroupSequential && plan.Spending == "" {
		plan.Spending = experiment.SpendingOBrienFleming
	}
	if p.GetConfidenceLevel() != 0 {
		plan.ConfidenceLevel = p.GetConfidenceLevel()
	}
	// The default is stored as absent, so that no plan's hash depends on it.
	if p != nil && p.SmallestCell != nil && *p.SmallestCell != experiment.DefaultSmallestCell {
		plan.SmallestCell = p.SmallestCell
	}
	if prior := p.GetPrior(); prior != nil {
		plan.Prior = &experiment.Prior{
			Alpha: prior.GetAlpha(), Beta: prior.GetBeta(), LiftMean: prior.LiftMean, LiftDeviation: prior.GetLiftStandardDeviation(),
		}
	}
	return plan
}

func fromMagnitude(m *assayv1.Magnitude) *experiment.Magnitude {
	switch scale := m.GetScale().(type) {
	case *assayv1.Magnitude_Absolute:
		return &experiment.Magnitude{Value: scale.Absolute}
	case *assayv1.Magnitude_Relative:
		return &experiment.Magnitude{Value: scale.Relative, Relative: true}
	}
	return nil
}

func toExperiment(e *experiment.Experiment) *assayv1.Experiment {
	def := &e.Current.Definition
	p := &assayv1.Experiment{
		Key:          e.Key,
		Unit:         def.Unit,
		Owner:        def.Owner,
		Description:  def.Description,
		Eligibility:  def.Eligibility,
		Traffic:      proto.Float64(def.Traffic),
		Salt:         def.Salt,
		Layer:        def.Layer,
		Holdouts:     e.Holdouts,
		Sticky:       def.Sticky,
		IntakeClosed: def.IntakeClosed,
		SplitSalt:    def.SplitSalt,
		Assignment:   assayv1.Experiment_ASSIGNMENT_NATIVE,
		Labels:       def.Labels,
		Segments:     def.Segments,
		Plan:         toPlan(&def.Plan),
		State:        states.to(e.State),
		Revision:     e.Current.Number,
		Phase:        e.Current.Phase,
		PlanHash:     e.PlanHash,
		Conclusion:   toConclusion(e),
		Etag:         formatEtag(e.Version),
		CreateTime:   timestamppb.New(e.CreateTime),
		UpdateTime:   timestamppb.New(e.UpdateTime),
		StartTime:    optionalTime(e.StartTime),
		ConcludeTime: optionalTime(e.ConcludeTime),
	}
	p.RosterSubjects = e.Roster.Subjects()
	if def.External {
		p.Assignment = assayv1.Experiment_ASSIGNMENT_EXTERNAL
	}
	if def.Hypothesis != (experiment.Hypothesis{}) {
		p.Hypothesis = &assayv1.Hypothesis{Statement: def.Hypothesis.Statement, NullHypothesis: def.Hypothesis.Null}
	}
	for _, v := range def.Variants {
		p.Variants = append(p.Variants, &assayv1.Variant{
			Key: v.Key, Control: v.Control, Weight: proto.Int32(v.Weight), Payload: decodeStruct(v.Payload), Description: v.Description,
		})
	}
	for _, c := range def.Covariates {
		p.Covariates = append(p.Covariates, toCovariate(c))
	}
	for _, m := range def.Metrics {
		p.Metrics = append(p.Metrics, &assayv1.ExperimentMetric{
			Metric: m.Metric, Role: roles.to(m.Role), Objective: objectives.to(cmp.Or(m.Objective, m.Role.DefaultObjective())),
			Covariates: m.Covariates, Margin: toMagnitude(m.Margin),
		})
	}
	p.Allocation = toRanges(e.Current.Allocation)
	if e.Slot != nil {
		p.Slot = toRanges(e.Slot.Ranges)
	}
	return p
}

func toCovariate(c experiment.Covariate) *assayv1.Covariate {
	p := &assayv1.Covariate{Name: c.Name}
	if c.Past == nil {
		p.Source = &assayv1.Covariate_Attribute{Attribute: c.Attribute}
	} else {
		p.Source = &assayv1.Covariate_PastOutcomes{PastOutcomes: &assayv1.PastOutcomes{
			Outcome: c.Past.Outcome, Aggregate: aggregates.to(c.Past.Aggregate), Conditions: toConditions(c.Past.Conditions),
			Window: durationpb.New(c.Past.Window),
		}}
	}
	return p
}

func toPlan(plan *experiment.Plan) *assayv1.Plan {
	return &assayv1.Plan{
		Method:          methods.to(plan.Method),
		ConfidenceLevel: proto.Float64(plan.ConfidenceLevel),
		Correction:      corrections.to(plan.Correction),
		MinimumEffect:   toMagnitude(plan.MinimumEffect),
		PlannedSubjects: plan.PlannedSubjects,
		StratifyBy:      plan.StratifyBy,
		SmallestCell:    proto.Int32(int32(plan.SmallestSegment())),
		Spending:        spendings.to(plan.Spending),
		Prior:           toPrior(plan.Prior),
	}
}

func toPrior(p *experiment.Prior) *assayv1.Prior {
	if p == nil {
		return nil
	}
	return &assayv1.Prior{
		Alpha: optionalNumber(p.Alpha), Beta: optionalNumber(p.Beta),
		LiftMean: p.LiftMean, LiftStandardDeviation: optionalNumber(p.LiftDeviation),
	}
}

// optionalNumber is a number whose noun is 0 if it was not given.
func optionalNumber(x float64) *float64 {
	if x == 0 {
		return nil
	}
	return &x
}

func toMagnitude(m *experiment.Magnitude) *assayv1.Magnitude {
	switch {
	case m == nil:
		return nil
	case m.Relative:
		return &assayv1.Magnitude{Scale: &assayv1.Magnitude_Relative{Relative: m.Value}}
	}
	return &assayv1.Magnitude{Scale: &assayv1.Magnitude_Absolute{Absolute: m.Value}}
}

func optionalTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
