package server

import (
	"testing"

	"google.golang.org/grpc/metadata"
)

// TestAuthorOf reads what only other clients than grpc-go send.
func TestAuthorOf(t *testing.T) {
	for sent, want := range map[string]string{"Zoë": "Zoë", "a\tb": "", "a\xffb": "", "a\x00b": "", "a\u2028b": "", "a\ufffdb": ""} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(authorKey, sent))
		if got := authorOf(ctx); got != want {
			t.Errorf("%q is read as %q, want %q", sent, got, want)
		}
	}
}
