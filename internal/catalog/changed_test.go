package catalog

import (
	"testing"
	"testing/synctest"
)

func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStorage()
		s, _ := open(st)
		refresh := func() {
			t.Helper()
			if err := s.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		closed := func(changed <-chan struct{}) bool {
			select {
			case <-changed:
				return true
			default:
				return false
			}
		}
		st.put("x", 1, 0)
		first, before := s.Changed(), s.Current()
		refresh()
		if !closed(first) || s.Current() == before {
			t.Error("a change does not show")
		}
		second := s.Changed()
		refresh()
		if closed(second) {
			t.Error("a load that brings nothing passes for a change")
		}
		st.put("x", 2, 1)
		refresh()
		if !closed(second) || closed(s.Changed()) {
			t.Error("the second change does not show, or for ever")
		}
	})
}
