package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	flagdv1 "github.com/assayhq/assay/gen/flagd/evaluation/v1"
	flagdv2 "github.com/assayhq/assay/gen/flagd/evaluation/v2"
	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/experiment"
)

// FuzzFlag resolves whatever decodes as a request. A request of one type reads
// as one of any other.
func FuzzFlag(f *testing.F) {
	d := experiment.Definition{Unit: "user", Traffic: 1, Eligibility: "attributes.age >= 18",
		Variants: []experiment.Variant{{Key: "b", Weight: 1, Payload: json.RawMessage(`{"value":7}`)}}}
	r := experiment.Revision{Number: 1, Phase: 1, Definition: d, Allocation: []experiment.Range{{From: 0, To: experiment.Buckets, Variant: "b"}}}
	h := experiment.History{
		Experiment: experiment.Experiment{Key: "flag", State: experiment.StateRunning, Version: 1, Current: r},
		Revisions:  []experiment.Terms{r.Terms()},
	}
	load := func(context.Context, map[string]*experiment.History) ([]experiment.History, bool, error) {
		return []experiment.History{h}, false, nil
	}
	store := catalog.New(nil, load, nil, nil, time.Hour, slog.New(slog.DiscardHandler))
	if err := store.Refresh(f.Context()); err != nil {
		f.Fatal(err)
	}
	s := &services{Config: Config{Catalog: store, Now: time.Now}, failures: newFailures()}
	for _, text := range []string{
		`{"flag_key":"flag","context":{"targetingKey":"u-1","age":31}}`,
		`{"flag_key":"flag","context":{"targetingKey":"u-1","age":"x","nested":{"a":[null,{}]}}}`,
		`{"flag_key":"other","context":{"targetingKey":7}}`,
	} {
		var req flagdv2.ResolveIntRequest
		if err := protojson.Unmarshal([]byte(text), &req); err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(&req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req flagdv2.ResolveIntRequest
		if proto.Unmarshal(b, &req) != nil {
			return
		}
		second, err := (&flagdV2{services: s}).ResolveInt(t.Context(), &req)
		first, firstErr := (&flagdV1{services: s}).ResolveInt(t.Context(), &flagdv1.ResolveIntRequest{FlagKey: req.FlagKey, Context: req.Context})
		switch {
		case err != nil:
			if code := status.Code(err); code != codes.NotFound && code != codes.FailedPrecondition || status.Code(firstErr) != code {
				t.Errorf("%v; version 1: %v", err, firstErr)
			}
		case second.Variant == nil:
			if second.Value != nil || second.Reason != reasonDefault || status.Code(firstErr) != codes.NotFound {
				t.Errorf("%v; version 1: %v, %v", second, first, firstErr)
			}
		case second.GetValue() != 7 || first.GetValue() != 7 || second.GetVariant() != first.GetVariant() || second.Reason != first.Reason:
			t.Errorf("%v; version 1: %v, %v", second, first, firstErr)
		}
	})
}
