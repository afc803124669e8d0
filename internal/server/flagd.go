package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

// This file holds what both versions of the OpenFeature protocol share: from a
// flag's key and a context to a resolution. flagd is the daemon whose protocol
// it is; its names in here are those of its providers.

// The reasons, as OpenFeature spells them. Providers keep a STATIC value by the
// flag's key alone, so it must not depend on the subject in any way. They take
// the caller's default upon DEFAULT and DISABLED if there is no variant.
const (
	reasonSplit          = "SPLIT"
	reasonTargetingMatch = "TARGETING_MATCH"
	reasonStatic         = "STATIC"
	reasonDefault        = "DEFAULT"
	reasonDisabled       = "DISABLED"
)

// flagError is a refusal by its OpenFeature code.
type flagError struct {
	code string
	text string
}

func (e *flagError) Error() string { return e.code + ": " + e.text }

// flagCodes gives each OpenFeature code the status that flagd's providers read
// as it. For the last two they have none: INVALID_ARGUMENT would become
// TYPE_MISMATCH, UNAVAILABLE FLAG_NOT_FOUND, and UNKNOWN they try again. The
// status here becomes their general error, which passes the message on.
var flagCodes = map[string]codes.Code{
	"FLAG_NOT_FOUND":        codes.NotFound,
	"TYPE_MISMATCH":         codes.InvalidArgument,
	"TARGETING_KEY_MISSING": codes.FailedPrecondition,
	"INVALID_CONTEXT":       codes.FailedPrecondition,
}

func flagErrorf(code, format string, args ...any) error {
	return &flagError{code, fmt.Sprintf(format, args...)}
}

var errNoTargetingKey = flagErrorf("TARGETING_KEY_MISSING", "the context has no targetingKey, by which a subject is assigned")

// flagStatus returns the status of a resolution's error.
func flagStatus(err error) error {
	var refusal *flagError
	if !errors.As(err, &refusal) {
		return err
	}
	st := status.New(flagCodes[refusal.code], refusal.Error())
	return withDetails(st, &errdetails.ErrorInfo{Reason: refusal.code, Domain: "assay"})
}

// Limits and names of a context.
const (
	targetingKey = "targetingKey"
	maxKeyBytes  = 256 // As in the rules of Subject.
)

// flagSubject is the subject of one call, for experiments of any unit.
type flagSubject struct {
	services   *services
	ctx        context.Context // Of the call, to which the subject belongs.
	snapshot   *assign.Catalog
	at         time.Time
	key        string // "" if the context has none.
	attributes map[string]any
	units      map[string]*assign.Subject
}

// flagSubject reads a context.
func (s *services) flagSubject(ctx context.Context, from *structpb.Struct) (*flagSubject, error) {
	var invalid *experiment.InvalidError
	if err := checkAttributes("context", from); errors.As(err, &invalid) {
		return nil, flagErrorf("INVALID_CONTEXT", "%s %s", invalid.Violations[0].Field, invalid.Violations[0].Message)
	}
	f := &flagSubject{services: s, ctx: ctx, snapshot: s.Catalog.Current(), at: s.Now(), attributes: from.AsMap(), units: map[string]*assign.Subject{}}
	switch key := f.attributes[targetingKey].(type) {
	case nil:
	case string:
		if len(key) > maxKeyBytes {
			return nil, flagErrorf("INVALID_CONTEXT", "the targetingKey takes %d bytes; at most %d are read", len(key), maxKeyBytes)
		}
		if strings.ContainsRune(key, 0) {
			return nil, flagErrorf("INVALID_CONTEXT", "the targetingKey must not contain NUL")
		}
		f.key = key
	default:
		return nil, flagErrorf("INVALID_CONTEXT", "the targetingKey must be a string")
	}
	delete(f.attributes, targetingKey)
	return f, nil
}

// subject is the subject of the unit that an experiment randomises: a client of
// OpenFeature knows of no units.
func (f *flagSubject) subject(e *assign.Experiment) *assign.Subject {
	unit := e.Current.Definition.Unit
	if f.units[unit] == nil {
		f.units[unit] = f.snapshot.Subject(unit, f.key, f.attributes, f.at)
		f.units[unit].Within(f.ctx)
	}
	return f.units[unit]
}

// resolution is what a flag comes to for one subject.
type resolution struct {
	reason  string
	variant string           // "" for none: the caller's default holds.
	payload *structpb.Struct // Of the variant; nil for none. Shared: for reading only.

	metadata *structpb.Struct // Nil for none. Shared as well.
}

// enrollmentUnknown is the metadata of a flag whose experiment is sticky, where it
// could not be read whether the subject is enrolled.
var enrollmentUnknown = &structpb.Struct{Fields: map[string]*structpb.Value{
	"enrollmentUnknown": structpb.NewBoolValue(true),
	"enrollmentNote":    structpb.NewStringValue("Whether the subject is enrolled could not be read: this is what it gets if it is not, and may not be the variant that it keeps."),
}}

func (f *flagSubject) resolve(key string) (resolution, error) {
	e := f.snapshot.Experiment(key)
	if e == nil {
		return resolution{}, flagErrorf("FLAG_NOT_FOUND", "there is no experiment %q", shorten(key, maxFieldBytes))
	}
	d := f.subject(e).Decide(e)
	if d.Failed() {
		if err := f.services.countFailed(f.ctx, d); err != nil {
			return resolution{}, err
		}
	}
	r := resolution{reason: flagReason(d, f.at)}
	if d.EnrollmentUnknown() {
		r.metadata = enrollmentUnknown
	}
	if r.reason != reasonDisabled && f.key == "" {
		return r, errNoTargetingKey
	}
	if d.Variant >= 0 {
		r.variant, r.payload = e.Current.Definition.Variants[d.Variant].Key, payloadOf(d).message
	}
	return r, nil
}

func flagReason(d assign.Decision, at time.Time) string {
	switch d.Reason {
	case assign.ReasonNotRunning, assign.ReasonExternal:
		return reasonDisabled
	case assign.ReasonSplit, assign.ReasonHoldout, assign.ReasonRoster:
		return reasonSplit
	case assign.ReasonConcluded:
		if d.Experiment.HoldsOut(at) {
			return reasonSplit
		}
		if d.Experiment.Current.Definition.Eligibility == "" {
			return reasonStatic
		}
	}
	if d.Variant < 0 {
		return reasonDefault
	}
	return reasonTargetingMatch
}

// flagRequest is what the requests of all types ask.
type flagRequest interface {
	GetFlagKey() string
	GetContext() *structpb.Struct
}

// resolveFlag resolves one flag to the type that value reads. Without a variant
// the value is the zero one, which is not to be used.
func resolveFlag[T any](ctx context.Context, s *services, req flagRequest, value func(resolution) (T, error)) (v T, r resolution, err error) {
	subject, err := s.flagSubject(ctx, req.GetContext())
	if err == nil {
		s.enroll(ctx, subject, req.GetFlagKey())
		r, err = subject.resolve(req.GetFlagKey())
	}
	if err == nil && r.variant != "" {
		v, err = value(r)
	}
	return v, r, flagStatus(err)
}

func mismatch(r resolution, wanted string) error {
	return flagErrorf("TYPE_MISMATCH", "the variant %q has no %s", r.variant, wanted)
}

func boolOf(r resolution) (bool, error) {
	if v, ok := r.payload.GetFields()["value"].GetKind().(*structpb.Value_BoolValue); ok {
		return v.BoolValue, nil
	}
	return false, mismatch(r, "payload with a boolean `value`")
}

func stringOf(r resolution) (string, error) {
	if r.payload == nil {
		return r.variant, nil
	}
	if v, ok := r.payload.Fields["value"].GetKind().(*structpb.Value_StringValue); ok {
		return v.StringValue, nil
	}
	return "", mismatch(r, "string `value` in its payload")
}

func floatOf(r resolution) (float64, error) {
	if v, ok := r.payload.GetFields()["value"].GetKind().(*structpb.Value_NumberValue); ok {
		return v.NumberValue, nil
	}
	return 0, mismatch(r, "payload with a number as `value`")
}

func intOf(r resolution) (int64, error) {
	v, err := floatOf(r)
	if err != nil || v != math.Trunc(v) || v < -1<<63 || v >= 1<<63 {
		return 0, mismatch(r, "payload with a whole number as `value`")
	}
	return int64(v), nil
}

func objectOf(r resolution) (*structpb.Struct, error) {
	if r.payload == nil {
		return nil, mismatch(r, "payload")
	}
	return r.payload, nil
}

// resolveAll calls found with every flag that has a value for the subject.
func (s *services) resolveAll(ctx context.Context, from *structpb.Struct, found func(key string, r resolution)) error {
	subject, err := s.flagSubject(ctx, from)
	if err == nil && subject.key == "" {
		err = errNoTargetingKey
	}
	if err != nil {
		return flagStatus(err)
	}
	keys := slices.Collect(maps.Keys(subject.snapshot.Versions()))
	s.enroll(ctx, subject, keys...)
	for _, key := range keys {
		if err := ctx.Err(); err != nil { // Many costly predicates take a while.
			return err
		}
		r, err := subject.resolve(key)
		if err != nil {
			return flagStatus(err)
		}
		if r.variant != "" {
			found(key, r)
		}
	}
	return nil
}

// noFlagValue is version 1's answer for a flag without a variant.
func noFlagValue(key string, r resolution) error {
	doubt := ""
	if r.metadata != nil {
		doubt = "; whether it is enrolled could not be read"
	}
	return flagStatus(flagErrorf("FLAG_NOT_FOUND", "the experiment %q has no variant for the subject (%s)%s", key, r.reason, doubt))
}
