package server

import (
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// Database says what the database can be used for.
type Database struct {
	Definitions, Recording, Analysis bool
}

// SetDatabase tells the health of the server's services what the database can be used
// for. Assignment needs none, so it is SERVING either way, and so is the server as a
// whole, which load balancers ask for: without its database it still does what must
// never stop.
func SetDatabase(srv *grpc.Server, h *health.Server, d Database) {
	for service := range srv.GetServiceInfo() {
		status := grpc_health_v1.HealthCheckResponse_SERVING
		if !d.serves(service) {
			status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
		h.SetServingStatus(service, status)
	}
}

// serves says whether a service can do its work.
func (d Database) serves(service string) bool {
	switch service {
	case assayv1.AssignmentService_ServiceDesc.ServiceName:
		return true
	case assayv1.EventService_ServiceDesc.ServiceName:
		return d.Recording
	case assayv1.AnalysisService_ServiceDesc.ServiceName:
		return d.Analysis
	case assayv1.SubjectService_ServiceDesc.ServiceName:
		return d.Recording && d.Analysis
	}
	return d.Definitions || !strings.HasPrefix(service, "assay.v1.")
}
