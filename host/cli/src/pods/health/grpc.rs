//! `grpc.health.v1.Health/Check`. Its two messages are small enough to be written here.

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use super::Failure;

/// The only one of the answers that is success.
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn check(address: &str, service: &str) -> Result<(), Failure> {
    let failed = |cause: String| Failure::Grpc { address: address.to_owned(), service: service.to_owned(), cause };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| failed(e.to_string()))?;
    let endpoint = endpoint.user_agent("kube-probe/husk").map_err(|e| failed(e.to_string()))?;
    let channel = endpoint.connect().await.map_err(|e| failed(format!("cannot be reached: {e}")))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|e| failed(format!("cannot be reached: {e}")))?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec: ProstCodec<CheckRequest, CheckResponse> = ProstCodec::default();
    let request = tonic::Request::new(CheckRequest { service: service.to_owned() });
    match client.unary(request, path, codec).await {
        Ok(answer) if answer.get_ref().status == SERVING => Ok(()),
        Ok(answer) => Err(failed(format!("answered status {}", answer.get_ref().status))),
        Err(status) => Err(failed(format!("answered {:?}: {}", status.code(), status.message()))),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::body::Body;
    use tonic::codegen::http;
    use tonic::server::{NamedService, UnaryService};
    use tonic::{Code, Request, Response, Status};

    use super::*;

    /// Knows the services "" and "up", which serve, and "down", which does not.
    #[derive(Clone)]
    struct Health;

    impl NamedService for Health {
        const NAME: &'static str = "grpc.health.v1.Health";
    }

    impl UnaryService<CheckRequest> for Health {
        type Response = CheckResponse;
        type Future = Ready<Result<Response<CheckResponse>, Status>>;

        fn call(&mut self, request: Request<CheckRequest>) -> Self::Future {
            ready(match request.get_ref().service.as_str() {
                "" | "up" => Ok(Response::new(CheckResponse { status: SERVING })),
                "down" => Ok(Response::new(CheckResponse { status: 2 })),
                _ => Err(Status::new(Code::NotFound, "unknown service")),
            })
        }
    }

    impl tower::Service<http::Request<Body>> for Health {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let codec: ProstCodec<CheckResponse, CheckRequest> = ProstCodec::default();
            Box::pin(async move { Ok(tonic::server::Grpc::new(codec).unary(Health, request).await) })
        }
    }

    #[tokio::test]
    async fn only_serving_is_success() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(Health);
        let served = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        for good in ["", "up"] {
            check(&address, good).await.unwrap();
        }
        let told = |result: Result<(), Failure>| result.unwrap_err().to_string();
        assert!(told(check(&address, "down").await).contains("answered status 2"));
        assert!(told(check(&address, "other").await).contains("NotFound: unknown service"));
        served.abort();
        let _ = served.await;
        assert!(told(check(&address, "").await).contains("cannot be reached"));
    }
}
