package server

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	flagdv1 "github.com/assayhq/assay/gen/flagd/evaluation/v1"
	flagdv2 "github.com/assayhq/assay/gen/flagd/evaluation/v2"
	"github.com/assayhq/assay/internal/experiment"
)

// class is a kind of work, whose calls share a bounded queue.
type class string

const (
	// classAssignment answers from memory, in microseconds, and must never wait.
	classAssignment class = "assignment"
	// classRecording is admitted by the size of its messages: see admission.
	classRecording class = "recording"
	// classStream is a stream, which has rules of its own.
	classStream class = "stream"
	// classDefinitions reads and writes a few rows by key.
	classDefinitions class = "definitions"
	// classSubjects reads or removes all events of a subject, of which months that
	// are not closed have no index.
	classSubjects class = "subjects"
	// classAnalysis reads all events of an experiment: see lanes.
	classAnalysis class = "analysis"
	// classComputing computes, from nothing but the request.
	classComputing class = "computing"
)

// classes gives every method that is served its class.
var classes = map[string]class{
	assayv1.AssignmentService_Assign_FullMethodName:            classAssignment,
	assayv1.AssignmentService_BatchAssign_FullMethodName:       classAssignment,
	assayv1.AssignmentService_ExplainAssignment_FullMethodName: classDefinitions,

	assayv1.EventService_RecordExposures_FullMethodName: classRecording,
	assayv1.EventService_RecordOutcomes_FullMethodName:  classRecording,
	assayv1.EventService_StreamEvents_FullMethodName:    classStream,

	assayv1.ExperimentService_CreateExperiment_FullMethodName:        classDefinitions,
	assayv1.ExperimentService_GetExperiment_FullMethodName:           classDefinitions,
	assayv1.ExperimentService_ListExperiments_FullMethodName:         classDefinitions,
	assayv1.ExperimentService_UpdateExperiment_FullMethodName:        classDefinitions,
	assayv1.ExperimentService_PreviewUpdate_FullMethodName:           classDefinitions,
	assayv1.ExperimentService_StartExperiment_FullMethodName:         classDefinitions,
	assayv1.ExperimentService_PauseExperiment_FullMethodName:         classDefinitions,
	assayv1.ExperimentService_ResumeExperiment_FullMethodName:        classDefinitions,
	assayv1.ExperimentService_ConcludeExperiment_FullMethodName:      classDefinitions,
	assayv1.ExperimentService_ArchiveExperiment_FullMethodName:       classDefinitions,
	assayv1.ExperimentService_ListExperimentRevisions_FullMethodName: classDefinitions,
	assayv1.ExperimentService_SetOverrides_FullMethodName:            classDefinitions,
	assayv1.ExperimentService_ListOverrides_FullMethodName:           classDefinitions,

	assayv1.LayerService_CreateLayer_FullMethodName:       classDefinitions,
	assayv1.LayerService_GetLayer_FullMethodName:          classDefinitions,
	assayv1.LayerService_ListLayers_FullMethodName:        classDefinitions,
	assayv1.LayerService_UpdateLayer_FullMethodName:       classDefinitions,
	assayv1.HoldoutService_CreateHoldout_FullMethodName:   classDefinitions,
	assayv1.HoldoutService_GetHoldout_FullMethodName:      classDefinitions,
	assayv1.HoldoutService_ListHoldouts_FullMethodName:    classDefinitions,
	assayv1.HoldoutService_UpdateHoldout_FullMethodName:   classDefinitions,
	assayv1.MetricService_CreateMetric_FullMethodName:     classDefinitions,
	assayv1.MetricService_GetMetric_FullMethodName:        classDefinitions,
	assayv1.MetricService_ListMetrics_FullMethodName:      classDefinitions,
	assayv1.MetricService_UpdateMetric_FullMethodName:     classDefinitions,
	assayv1.MetricService_ArchiveMetric_FullMethodName:    classDefinitions,
	assayv1.RosterService_AllocateRoster_FullMethodName:   classStream,
	assayv1.RosterService_GetRoster_FullMethodName:        classDefinitions,
	assayv1.RosterService_DeleteRoster_FullMethodName:     classDefinitions,
	assayv1.AuditService_ListAuditEvents_FullMethodName:   classDefinitions,
	assayv1.SubjectService_GetSubject_FullMethodName:      classSubjects,
	assayv1.SubjectService_EraseSubject_FullMethodName:    classSubjects,
	assayv1.AnalysisService_GetAnalysis_FullMethodName:    classDefinitions,
	assayv1.AnalysisService_ListAnalyses_FullMethodName:   classDefinitions,
	assayv1.AnalysisService_GetTimeline_FullMethodName:    classAnalysis,
	assayv1.AnalysisService_AnalyzeHoldout_FullMethodName: classAnalysis,

	assayv1.AnalysisService_AnalyzeExperiment_FullMethodName: classAnalysis,
	assayv1.AnalysisService_CompareAnalyses_FullMethodName:   classAnalysis,
	// A plan may take its baseline from an experiment's events.
	assayv1.AnalysisService_PlanExperiment_FullMethodName:   classAnalysis,
	assayv1.AnalysisService_CompareSummaries_FullMethodName: classComputing,

	flagdv1.Service_ResolveAll_FullMethodName:     classAssignment,
	flagdv1.Service_ResolveBoolean_FullMethodName: classAssignment,
	flagdv1.Service_ResolveString_FullMethodName:  classAssignment,
	flagdv1.Service_ResolveFloat_FullMethodName:   classAssignment,
	flagdv1.Service_ResolveInt_FullMethodName:     classAssignment,
	flagdv1.Service_ResolveObject_FullMethodName:  classAssignment,
	flagdv1.Service_EventStream_FullMethodName:    classStream,
	flagdv2.Service_ResolveBoolean_FullMethodName: classAssignment,
	flagdv2.Service_ResolveString_FullMethodName:  classAssignment,
	flagdv2.Service_ResolveFloat_FullMethodName:   classAssignment,
	flagdv2.Service_ResolveInt_FullMethodName:     classAssignment,
	flagdv2.Service_ResolveObject_FullMethodName:  classAssignment,
	flagdv2.Service_EventStream_FullMethodName:    classStream,

	grpc_health_v1.Health_Check_FullMethodName:                             classAssignment,
	grpc_health_v1.Health_List_FullMethodName:                              classAssignment,
	grpc_health_v1.Health_Watch_FullMethodName:                             classStream,
	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      classStream,
	reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: classStream,
}

// bounds are those of a class.
type bounds struct {
	atOnce   int64
	queue    int64         // How many may wait beside; more are refused.
	deadline time.Duration // Of a call, with its waiting.
}

// boundsOf are the bounds of the classes that have a queue.
//
// Definitions: four calls for each of their database connections keep those busy, and
// as each takes some milliseconds, a full queue is worked off in seconds; the deadline
// is two statements that run into their timeout. Subjects: one removal runs at a time,
// and reads months whole; one that is cut off is finished by maintenance. Analyses wait
// for their lane, which [lanes] counts: here it matters only that the waiting are
// bounded; the longest are those of tens of millions of events. Computing: the largest
// request takes a processor 2.4 seconds, and a full queue of such 40.
func boundsOf() map[class]bounds {
	return map[class]bounds{
		classDefinitions: {atOnce: 16, queue: 256, deadline: 30 * time.Second},
		classSubjects:    {atOnce: 2, queue: 32, deadline: analysisDeadline},
		classAnalysis:    {atOnce: 32, queue: 0, deadline: analysisDeadline},
		classComputing:   {atOnce: turnsAtOnce(), queue: 16, deadline: time.Minute},
	}
}

// analysisDeadline ends an analysis on the server's side. Ten million events take half
// a minute.
const analysisDeadline = 10 * time.Minute

// work gives every call that is not answered from memory a deadline and a place in the
// queue of its class, first come, first served. A call whose queue is full is refused at
// once.
type work struct {
	queues   map[class]*queue
	byMethod map[string]*queue // Of the methods whose class has one.
	reading  *lanes
	turns    *turns
	refused  *prometheus.CounterVec
	exceeded *prometheus.CounterVec
}

// queue is the calls of one class.
type queue struct {
	bounds
	class   class
	places  *semaphore.Weighted
	inside  atomic.Int64 // With those that wait.
	working atomic.Int64
}

func newWork(metrics prometheus.Registerer) (*work, error) {
	w := &work{
		queues: map[class]*queue{}, byMethod: map[string]*queue{}, reading: newLanes(), turns: newTurns(),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_calls_refused_total",
			Help: "Calls that were refused because the queue of their class was full, or they needed more memory than there is for them.",
		}, []string{"class"}),
		exceeded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_calls_timed_out_total",
			Help: "Calls that the server ended at the deadline of their class.",
		}, []string{"class"}),
	}
	all := []prometheus.Collector{w.refused, w.exceeded}
	for name, b := range boundsOf() {
		q := &queue{bounds: b, class: name, places: semaphore.NewWeighted(b.atOnce)}
		w.queues[name] = q
		w.refused.WithLabelValues(string(name))
		w.exceeded.WithLabelValues(string(name))
		all = append(all, q.gauge("assay_calls_under_way", "Calls that are worked on, by class.", q.working.Load),
			q.gauge("assay_calls_waiting", "Calls that wait in the queue of their class.", func() int64 { return q.inside.Load() - q.working.Load() }))
	}
	for method, c := range classes {
		if q := w.queues[c]; q != nil {
			w.byMethod[method] = q
		}
	}
	for _, c := range all {
		if err := metrics.Register(c); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (q *queue) gauge(name, help string, value func() int64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"class": string(q.class)}},
		func() float64 { return float64(value()) })
}

// admit is the interceptor of unary calls.
func (w *work) admit(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	q := w.byMethod[info.FullMethod]
	if q == nil || req == nil { // It was refused before, and need not wait for that.
		return handler(ctx, req)
	}
	limited, cancel := context.WithTimeout(ctx, q.deadline)
	defer cancel()
	if err := q.enter(limited); err != nil {
		return nil, w.told(ctx, limited, q, err)
	}
	defer q.leave()
	p := &place{work: w, class: q.class}
	defer p.leave()
	limited = context.WithValue(limited, placeKey{}, p)
	if q.class == classComputing {
		if err := p.enterTurn(limited); err != nil {
			return nil, w.told(ctx, limited, q, err)
		}
	}
	resp, err := handler(limited, req)
	if err != nil {
		return nil, w.told(ctx, limited, q, err)
	}
	return resp, nil
}

// turnBefore waits for a turn for what comes before a call takes its place in the queue.
func (w *work) turnBefore(ctx context.Context, q *queue) (*turn, error) {
	limited, cancel := context.WithTimeout(ctx, q.deadline)
	defer cancel()
	one, err := w.turns.take(limited)
	if err != nil {
		return nil, w.told(ctx, limited, q, err)
	}
	return one, nil
}

// told counts why a call ended, and says so where it was the server that ended it.
func (w *work) told(ctx, limited context.Context, q *queue, err error) error {
	switch {
	case ctx.Err() != nil: // The caller did.
	case limited.Err() != nil:
		w.exceeded.WithLabelValues(string(q.class)).Inc()
		return experiment.Errorf(experiment.ErrDeadline, "SERVER_DEADLINE", "the server ends a call like this after %v, with its time in the queue; try again when there is less to do, or ask for less", q.deadline)
	case errors.Is(err, experiment.ErrExhausted), errors.Is(err, experiment.ErrTooLarge):
		w.refused.WithLabelValues(string(q.class)).Inc()
	}
	return err
}

// enter takes a place, for which it may wait in the queue.
func (q *queue) enter(ctx context.Context) error {
	if q.inside.Add(1) > q.atOnce+q.queue {
		q.inside.Add(-1)
		return errQueueFull(q.class)
	}
	if err := q.places.Acquire(ctx, 1); err != nil {
		q.inside.Add(-1)
		return err
	}
	q.working.Add(1)
	return nil
}

func (q *queue) leave() {
	q.working.Add(-1)
	q.inside.Add(-1)
	q.places.Release(1)
}

func errQueueFull(c class) error {
	return experiment.Errorf(experiment.ErrExhausted, "QUEUE_FULL", "too many calls of the kind %q are waiting already; send this one again later", string(c))
}

// place is what a call holds while it is worked on, in its context. Only the
// call's own goroutine touches it.
type place struct {
	work  *work
	class class
	lane  []*semaphore.Weighted
	turn  *turn // While it computes.
}

type placeKey struct{}

// leave gives back what the call still holds.
func (p *place) leave() {
	for _, held := range p.lane {
		held.Release(1)
	}
	p.lane = nil
	p.leaveTurn()
}

func (p *place) enterTurn(ctx context.Context) (err error) {
	p.turn, err = p.work.turns.take(ctx)
	return err
}

func (p *place) leaveTurn() {
	if p.turn != nil {
		p.turn.end()
		p.turn = nil
	}
}

// inTurn does what keeps a processor busy, when it is its turn. What is interrupted ends
// at f's next pause, with the context's error.
func inTurn(ctx context.Context, f func() error) error {
	p, _ := ctx.Value(placeKey{}).(*place)
	if p == nil || p.turn != nil { // It has its turn already.
		return f()
	}
	defer p.leaveTurn()
	if err := p.enterTurn(ctx); err != nil {
		return err
	}
	return f()
}

// pause returns what long computations call between two steps: it lets others have the
// processor, and says when the caller does not wait any more.
func pause(ctx context.Context) func() error {
	p, _ := ctx.Value(placeKey{}).(*place)
	return func() error {
		runtime.Gosched()
		if p != nil && p.turn != nil {
			return p.turn.pass(ctx)
		}
		return ctx.Err()
	}
}
