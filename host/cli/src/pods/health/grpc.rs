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
