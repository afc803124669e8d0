package server

import (
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// SetDatabase tells the health of the server's services whether the database
// can be reached. Assignment needs none, so it is SERVING either way, and so is
// the server as a whole, which load balancers ask for: without its database it
// still does what must never stop.
func SetDatabase(srv *grpc.Server, h *health.Server, reachable bool) {
	for service := range srv.GetServiceInfo() {
		status := grpc_health_v1.HealthCheckResponse_SERVING
		if !reachable && needsDatabase(service) {
			status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
		h.SetServingStatus(service, status)
	}
}

// needsDatabase says whether a service is ours and cannot do without.
func needsDatabase(service string) bool {
	return strings.HasPrefix(service, "assay.v1.") && service != assayv1.AssignmentService_ServiceDesc.ServiceName
}
