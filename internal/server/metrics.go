package server

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

type metricService struct {
	assayv1.UnimplementedMetricServiceServer
	*services
}

func (s *metricService) CreateMetric(ctx context.Context, req *assayv1.CreateMetricRequest) (*assayv1.CreateMetricResponse, error) {
	def, err := fromMetric(req.Metric)
	if err != nil {
		return nil, inField("metric", err)
	}
	if err := experiment.CheckStored("the metric", []any{def}, nil); err != nil {
		return nil, err
	}
	m, err := s.DB.CreateMetric(ctx, req.Metric.Key, req.RequestId, authorOf(ctx), *def)
	if err != nil {
		return nil, err
	}
	return &assayv1.CreateMetricResponse{Metric: toMetric(m)}, nil
}

func (s *metricService) GetMetric(ctx context.Context, req *assayv1.GetMetricRequest) (*assayv1.GetMetricResponse, error) {
	m, err := s.DB.Metric(ctx, req.Key, req.GetRevision())
	if err != nil {
		return nil, err
	}
	return &assayv1.GetMetricResponse{Metric: toMetric(m)}, nil
}

func (s *metricService) ListMetrics(ctx context.Context, req *assayv1.ListMetricsRequest) (*assayv1.ListMetricsResponse, error) {
	after, err := pagePosition(req.PageToken, "", readKey)
	if err != nil {
		return nil, err
	}
	list := listing[*metric.Metric, string, *assayv1.Metric]{
		read: func(after string, n int) ([]*metric.Metric, error) {
			return s.DB.Metrics(ctx, after, n, req.IncludeArchived)
		},
		position: func(m *metric.Metric) string { return m.Key },
		convert:  func(m *metric.Metric) (*assayv1.Metric, error) { return toMetric(m), nil },
	}
	resp := &assayv1.ListMetricsResponse{}
	resp.Metrics, resp.NextPageToken, err = list.page(req.PageSize, after)
	return resp, err
}

func (s *metricService) UpdateMetric(ctx context.Context, req *assayv1.UpdateMetricRequest) (*assayv1.UpdateMetricResponse, error) {
	etag, err := checkUpdate("metric", req.GetMetric().GetKey(), req.GetMetric().GetEtag())
	if err != nil {
		return nil, err
	}
	fields, err := changedFields(req.Metric, req.UpdateMask, metricFields)
	if err != nil {
		return nil, err
	}
	m, err := s.DB.UpdateMetric(ctx, req.Metric.Key, authorOf(ctx), etag, func(now *metric.Metric) (metric.Definition, error) {
		next := toMetric(now)
		replaceFields(next, req.Metric, fields)
		if err := checkRules(s.validator, next); err != nil {
			return metric.Definition{}, err
		}
		def, err := fromMetric(next)
		if err != nil {
			return metric.Definition{}, err
		}
		return *def, experiment.CheckStored("the metric", []any{def}, []any{&now.Definition})
	})
	if err != nil {
		return nil, inField("metric", err)
	}
	return &assayv1.UpdateMetricResponse{Metric: toMetric(m)}, nil
}

// metricFields are the fields that an update may name.
var metricFields = []string{"description", "direction", "proportion", "mean", "sum", "ratio", "formula", "window"}

func (s *metricService) ArchiveMetric(ctx context.Context, req *assayv1.ArchiveMetricRequest) (*assayv1.ArchiveMetricResponse, error) {
	etag, err := parseEtag("etag", req.Etag)
	if err != nil {
		return nil, err
	}
	m, err := s.DB.ArchiveMetric(ctx, req.Key, authorOf(ctx), etag)
	if err != nil {
		return nil, err
	}
	return &assayv1.ArchiveMetricResponse{Metric: toMetric(m)}, nil
}

// fromMetric returns the definition of a metric that keeps the schema's rules,
// after a check of the rules across its fields.
func fromMetric(m *assayv1.Metric) (*metric.Definition, error) {
	var def metric.Definition
	switch d := m.Definition.(type) {
	case *assayv1.Metric_Proportion:
		def = metric.Proportion(d.Proportion.Outcome, fromConditions(d.Proportion.Conditions))
	case *assayv1.Metric_Mean:
		def = metric.Mean(d.Mean.Outcome, fromConditions(d.Mean.Conditions))
	case *assayv1.Metric_Sum:
		def = metric.Sum(d.Sum.Outcome, fromConditions(d.Sum.Conditions))
		def.Components[0].Cap = fromCap(d.Sum.Cap)
	case *assayv1.Metric_Ratio:
		def = metric.Ratio(fromComponent(d.Ratio.Numerator), fromComponent(d.Ratio.Denominator))
	case *assayv1.Metric_Formula:
		components := make([]experiment.Component, len(d.Formula.Components))
		for i, c := range d.Formula.Components {
			components[i] = fromComponent(c)
		}
		def = metric.Formula(d.Formula.Expression, components)
	}
	def.Description = m.Description
	def.Direction = directions.from(m.Direction)
	def.Window = m.Window.AsDuration()
	return &def, def.Validate()
}

func toMetric(m *metric.Metric) *assayv1.Metric {
	def := &m.Definition
	p := &assayv1.Metric{
		Key:         m.Key,
		Description: def.Description,
		Direction:   directions.to(def.Direction),
		Revision:    m.Revision,
		Archived:    m.Archived,
		Etag:        formatEtag(m.Version),
		CreateTime:  timestamppb.New(m.CreateTime),
		UpdateTime:  timestamppb.New(m.UpdateTime),
	}
	if def.Window > 0 {
		p.Window = durationpb.New(def.Window)
	}
	components := make([]*assayv1.Component, len(def.Components))
	for i, c := range def.Components {
		components[i] = toComponent(c)
	}
	first := components[0]
	switch def.Kind {
	case metric.KindProportion:
		p.Definition = &assayv1.Metric_Proportion{Proportion: &assayv1.Proportion{Outcome: first.Outcome, Conditions: first.Conditions}}
	case metric.KindMean:
		p.Definition = &assayv1.Metric_Mean{Mean: &assayv1.Mean{Outcome: first.Outcome, Conditions: first.Conditions}}
	case metric.KindSum:
		p.Definition = &assayv1.Metric_Sum{Sum: &assayv1.Sum{Outcome: first.Outcome, Conditions: first.Conditions, Cap: first.Cap}}
	case metric.KindRatio:
		p.Definition = &assayv1.Metric_Ratio{Ratio: &assayv1.Ratio{Numerator: first, Denominator: components[1]}}
	default:
		p.Definition = &assayv1.Metric_Formula{Formula: &assayv1.Formula{Expression: def.Expression, Components: components}}
	}
	return p
}

func fromComponent(c *assayv1.Component) experiment.Component {
	return experiment.Component{
		Name: c.Name, Outcome: c.Outcome, Aggregate: aggregates.from(c.Aggregate),
		Conditions: fromConditions(c.Conditions), Cap: fromCap(c.Cap),
	}
}

func toComponent(c experiment.Component) *assayv1.Component {
	return &assayv1.Component{
		Name: c.Name, Outcome: c.Outcome, Aggregate: aggregates.to(c.Aggregate),
		Conditions: toConditions(c.Conditions), Cap: toCap(c.Cap),
	}
}

func fromCap(c *assayv1.Cap) *experiment.Cap {
	if c == nil {
		return nil
	}
	limit := &experiment.Cap{IgnoreZeros: c.IgnoreZeros}
	switch lower := c.Lower.(type) {
	case *assayv1.Cap_LowerValue:
		limit.Lower = &experiment.Bound{Value: lower.LowerValue}
	case *assayv1.Cap_LowerPercentile:
		limit.Lower = &experiment.Bound{Value: lower.LowerPercentile, Percentile: true}
	}
	switch upper := c.Upper.(type) {
	case *assayv1.Cap_UpperValue:
		limit.Upper = &experiment.Bound{Value: upper.UpperValue}
	case *assayv1.Cap_UpperPercentile:
		limit.Upper = &experiment.Bound{Value: upper.UpperPercentile, Percentile: true}
	}
	return limit
}

func toCap(c *experiment.Cap) *assayv1.Cap {
	if c == nil {
		return nil
	}
	limit := &assayv1.Cap{IgnoreZeros: c.IgnoreZeros}
	switch lower := c.Lower; {
	case lower == nil:
	case lower.Percentile:
		limit.Lower = &assayv1.Cap_LowerPercentile{LowerPercentile: lower.Value}
	default:
		limit.Lower = &assayv1.Cap_LowerValue{LowerValue: lower.Value}
	}
	switch upper := c.Upper; {
	case upper == nil:
	case upper.Percentile:
		limit.Upper = &assayv1.Cap_UpperPercentile{UpperPercentile: upper.Value}
	default:
		limit.Upper = &assayv1.Cap_UpperValue{UpperValue: upper.Value}
	}
	return limit
}

func fromConditions(conditions []*assayv1.Condition) []experiment.Condition {
	var list []experiment.Condition
	for _, c := range conditions {
		list = append(list, experiment.Condition{Field: c.Field, Op: ops.from(c.Op), Values: c.Values})
	}
	return list
}

func toConditions(conditions []experiment.Condition) []*assayv1.Condition {
	var list []*assayv1.Condition
	for _, c := range conditions {
		list = append(list, &assayv1.Condition{Field: c.Field, Op: ops.to(c.Op), Values: c.Values})
	}
	return list
}
