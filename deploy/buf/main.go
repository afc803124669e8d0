// Command buf writes the protovalidate schema to standard output.
//
// The schema is published as a Buf module, which a build without that
// registry cannot fetch. Its compiled descriptor is linked into the Go module
// that the server validates with, so it is printed from there: buf lints
// against the very rules that the server enforces.
package main

import (
	"log"
	"os"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
)

func main() {
	file := validate.File_buf_validate_validate_proto
	if err := new(protoprint.Printer).PrintProtoFile(file, os.Stdout); err != nil {
		log.Fatal(err)
	}
}
