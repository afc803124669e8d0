package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/catalog"
)

// The kinds of events that flagd sends.
const (
	eventReady     = "provider_ready"
	eventChange    = "configuration_change"
	eventKeepAlive = "keep_alive"
)

// keepAliveInterval is flagd's, so that whatever stands between does not take
// the stream for dead.
const keepAliveInterval = 20 * time.Second

// flagEvents tells streams of changes. A stream remembers no more than the
// catalog of which it told last, so that one which is slow to read is told once
// of all that has changed meanwhile.
type flagEvents struct {
	catalog  *catalog.Store
	stopping <-chan struct{}

	mu       sync.Mutex
	from, to *assign.Catalog // Of the last comparison, since streams make the same at the same time.
	data     *structpb.Struct
}

// follow sends events until ctx ends, the server stops or send fails. It never
// ends without an error: some providers would not connect again.
func (f *flagEvents) follow(ctx context.Context, send func(kind string, data *structpb.Struct) error) error {
	changed, told := f.catalog.Changed(), f.catalog.Current()
	if err := send(eventReady, &structpb.Struct{}); err != nil {
		return err
	}
	keepAlive := time.NewTicker(keepAliveInterval)
	defer keepAlive.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.stopping:
			return status.Error(codes.Unavailable, "the server is stopping")
		case <-keepAlive.C:
			err = send(eventKeepAlive, &structpb.Struct{})
		case <-changed:
			changed = f.catalog.Changed()
			now := f.catalog.Current()
			err = send(eventChange, f.changes(told, now))
			told = now
		}
		if err != nil {
			return err
		}
	}
}

// changes returns the data of the event of a change: its field `flags` has a
// field for each experiment that is another in `to` than in `from`.
func (f *flagEvents) changes(from, to *assign.Catalog) *structpb.Struct {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.from == from && f.to == to {
		return f.data
	}
	created, updated := changeOf("write"), changeOf("update")
	flags := map[string]*structpb.Value{}
	for key := range to.Versions() {
		switch before := from.Experiment(key); before {
		case to.Experiment(key):
		case nil:
			flags[key] = created
		default:
			flags[key] = updated
		}
	}
	f.from, f.to = from, to
	f.data = &structpb.Struct{Fields: map[string]*structpb.Value{
		"flags": structpb.NewStructValue(&structpb.Struct{Fields: flags}),
	}}
	return f.data
}

func changeOf(kind string) *structpb.Value {
	return structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"type": structpb.NewStringValue(kind)}})
}
