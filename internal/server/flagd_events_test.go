package server

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/experiment"
)

// stage is a stream of events whose catalog, client and server the test plays.
type stage struct {
	store     *catalog.Store
	histories map[string]experiment.History
	events    *flagEvents
	stop      chan struct{}
	cancel    context.CancelFunc

	pause  chan struct{} // Unless nil, what each event waits for.
	broken error         // What sending returns.
	ended  chan error

	mu   sync.Mutex
	sent []string // The events, each as its kind and flags.
}

// play runs a test with a stream that is followed.
func play(t *testing.T, test func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{histories: map[string]experiment.History{}, stop: make(chan struct{}), ended: make(chan error, 1)}
		s.store = catalog.New(nil, func(context.Context, map[string]*experiment.History) ([]experiment.History, bool, error) {
			defer clear(s.histories)
			return slices.Collect(maps.Values(s.histories)), false, nil
		}, nil, nil, time.Hour, slog.New(slog.DiscardHandler))
		s.change(t, "old", 1)
		s.events = &flagEvents{catalog: s.store, stopping: s.stop}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s.cancel = cancel
		go func() { s.ended <- s.events.follow(ctx, s.send) }()
		synctest.Wait()
		test(t, s)
		cancel()
	})
}

func (s *stage) send(kind string, data *structpb.Struct) error {
	flags := data.Fields["flags"].GetStructValue().GetFields()
	for _, key := range slices.Sorted(maps.Keys(flags)) {
		kind += " " + key + ":" + flags[key].GetStructValue().Fields["type"].GetStringValue()
	}
	s.mu.Lock()
	s.sent = append(s.sent, kind)
	s.mu.Unlock()
	if s.pause != nil {
		<-s.pause
	}
	return s.broken
}

// change commits versions of experiments and refreshes the catalog.
func (s *stage) change(t *testing.T, keys string, version int64) {
	t.Helper()
	for key := range strings.FieldsSeq(keys) {
		r := experiment.Revision{Number: 1, Definition: experiment.Definition{Unit: "user"}}
		s.histories[key] = experiment.History{
			Experiment: experiment.Experiment{Key: key, State: experiment.StateDraft, Version: version, Current: r},
			Revisions:  []experiment.Terms{r.Terms()},
		}
	}
	if err := s.store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func (s *stage) check(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.sent); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestFollow(t *testing.T) {
	play(t, func(t *testing.T, s *stage) {
		s.check(t, "provider_ready")
		s.change(t, "new old", 2)
		s.change(t, "", 0)
		s.change(t, "new", 3)
		s.check(t, "provider_ready", "configuration_change new:write old:update", "configuration_change new:update")
		time.Sleep(2 * keepAliveInterval)
		s.check(t, "provider_ready", "configuration_change new:write old:update", "configuration_change new:update", "keep_alive", "keep_alive")
	})
}

// TestFollowSlowly holds that a client that does not read is told afterwards,
// at once, of all that it has missed.
func TestFollowSlowly(t *testing.T) {
	play(t, func(t *testing.T, s *stage) {
		s.pause = make(chan struct{})
		s.change(t, "a", 1)
		for version := range int64(5) {
			s.change(t, "a b c", version+2)
		}
		s.check(t, "provider_ready", "configuration_change a:write")
		close(s.pause)
		s.check(t, "provider_ready", "configuration_change a:write", "configuration_change a:update b:write c:write")
	})
}

// TestFollowTogether holds that streams which lag by different changes are each
// told of theirs.
func TestFollowTogether(t *testing.T) {
	play(t, func(t *testing.T, s *stage) {
		first := s.store.Current()
		s.change(t, "a", 1)
		second := s.store.Current()
		s.change(t, "b", 1)
		third := s.store.Current()
		for range 2 {
			s.sent = nil
			s.send("", s.events.changes(first, third))
			s.send("", s.events.changes(second, third))
			s.send("", s.events.changes(first, second))
			s.check(t, " a:write b:write", " b:write", " a:write")
		}
	})
}

func TestFollowEnds(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, s *stage)
		want func(error) bool
	}{
		{"by the server", func(_ *testing.T, s *stage) { close(s.stop) }, func(err error) bool { return status.Code(err) == codes.Unavailable }},
		{"by the client", func(_ *testing.T, s *stage) { s.cancel() }, func(err error) bool { return errors.Is(err, context.Canceled) }},
		{"by a broken stream", func(t *testing.T, s *stage) {
			s.broken = broken
			s.change(t, "a", 1)
		}, func(err error) bool { return err == broken }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			play(t, func(t *testing.T, s *stage) {
				tt.end(t, s)
				synctest.Wait()
				select {
				case err := <-s.ended:
					if !tt.want(err) {
						t.Errorf("the stream ended with %v", err)
					}
				default:
					t.Error("the stream goes on")
				}
			})
		})
	}
}
