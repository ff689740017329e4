//! `EventService`: what happens, as it happens, and the pictures that belong to it.
//!
//! In: subscriptions, snapshot ids. Out: streams of events, JPEGs.
//! A subscriber too many is refused; one that is too slow is ended with a status that says so.
//! Must not know: who writes events.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Request, Response, Status};

use super::Shared;
use super::auth;
use super::convert::{time, uuid};
use super::feed::{self, Filter, View};
use super::outgoing::Outgoing;
use super::status::{Refusal, stopping};
use crate::event::SnapshotId;
use crate::pb::event_service_server::EventService;
use crate::pb::{GetSnapshotRequest, GetSnapshotResponse, SubscribeRequest, SubscribeResponse, subscribe_request::Start};

/// How long a subscriber may take the last events when the daemon stops.
const LAST_EVENTS_MAX: Duration = Duration::from_secs(1);

/// The service.
pub(super) struct EventsApi(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl EventService for EventsApi {
    type SubscribeStream = Outgoing<SubscribeResponse>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let admission = auth::admission(&request);
        let request = request.into_inner();
        from_now(request.start.as_ref())?;
        let filter = Filter::read(&request)?;
        let place = self.0.subscriber_place()?;
        let parts = &self.0.parts;
        let mut subscription = parts.events.subscribe();
        let position = subscription.position();
        let view = View { filter, gallery: parts.gallery.clone(), clock: parts.clock.clone(), position };
        let stop = self.0.stopping.clone();
        Ok(Response::new(Outgoing::spawn(|out| async move {
            let _place = place;
            tokio::select! {
                status = feed::run(async move || subscription.next().await, view, out) => status,
                // The log is closed before the server stops: the feed ends by itself when it has
                // delivered the last events, unless its client does not take them.
                () = async { stop.cancelled().await; tokio::time::sleep(LAST_EVENTS_MAX).await } => stopping().into(),
                () = auth::revoked(admission) => auth::no_longer_admitted(),
            }
        })))
    }

    async fn get_snapshot(&self, request: Request<GetSnapshotRequest>) -> Result<Response<GetSnapshotResponse>, Status> {
        let id = SnapshotId(uuid(&request.get_ref().snapshot_id, "snapshot_id")?);
        let Some(snapshot) = self.0.parts.store.snapshot(id).await? else {
            let message = "there is no such snapshot, or it is no longer kept: it was too old, or the person was erased";
            return Err(Refusal::new(Code::NotFound, "SNAPSHOT_NOT_FOUND", message).with("snapshot_id", id.0).into());
        };
        Ok(Response::new(GetSnapshotResponse {
            crop_jpeg: snapshot.crop_jpeg,
            frame_jpeg: snapshot.frame_jpeg,
            capture_time: Some(time(snapshot.capture_time)),
            camera_id: snapshot.camera.to_string(),
        }))
    }
}

fn from_now(start: Option<&Start>) -> Result<(), Status> {
    let asked = match start {
        None | Some(Start::Now(_)) => return Ok(()),
        Some(Start::Earliest(_)) => "earliest",
        Some(Start::Cursor(_)) => "cursor",
    };
    let message = format!("start: this version serves events from `now` only, not from `{asked}`; leave `start` out or give `now`");
    Err(Refusal::new(Code::Unimplemented, "START_NOT_SUPPORTED", message).with("start", asked).field("start").into())
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;
    use crate::pb::subscribe_request::{Earliest, Now};

    #[test]
    fn a_start_in_the_past_is_refused_with_what_works() {
        assert!(from_now(None).is_ok() && from_now(Some(&Start::Now(Now {}))).is_ok());
        for start in [Start::Earliest(Earliest {}), Start::Cursor("x-1".into())] {
            let status = from_now(Some(&start)).expect_err("not in this version");
            assert_eq!(status.get_details_error_info().map(|info| info.reason).as_deref(), Some("START_NOT_SUPPORTED"));
            assert!(status.message().contains("`now`"), "{}", status.message());
        }
    }
}
