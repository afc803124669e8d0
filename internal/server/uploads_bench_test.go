package server

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/net/http2"
)

// BenchmarkFollow is what a connection that is followed takes for one call of 300
// bytes, both ways, of which a call over the network takes some 20 µs of processor.
func BenchmarkFollow(b *testing.B) {
	var in, out bytes.Buffer
	f, back := http2.NewFramer(&in, nil), http2.NewFramer(&out, nil)
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 60), EndHeaders: true})
	message := make([]byte, 300)
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-5))
	f.WriteData(1, true, message)
	back.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 30), EndHeaders: true})
	back.WriteData(1, false, make([]byte, 200))
	back.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 30), EndHeaders: true, EndStream: true})
	u := newUploads(maxUploadBytes, false, nil, nil)
	reader := bytes.NewReader(nil)
	c := u.follow(&playedConn{in: reader}, "a", func() {}).(*uploadingConn)
	c.preface = 0
	buffer := make([]byte, 32<<10)
	sent, answered := in.Bytes(), out.Bytes()
	for id := uint32(1); b.Loop(); id += 2 {
		for _, head := range [][]byte{sent, sent[9+60:], answered, answered[9+30:], answered[9+30+9+200:]} {
			binary.BigEndian.PutUint32(head[5:], id)
		}
		reader.Reset(sent)
		c.Read(buffer)
		c.Write(answered)
	}
}
