//! The stream that one would write otherwise: for each subscriber, every event encoded and sent alone.
//!
//! In: a broadcast channel. Out: a tonic stream for each subscriber. Nothing is on disk, nothing resumes.
//! Must not know: the log.

use std::pin::Pin;
use std::sync::Arc;

use doorward::event::Event;
use doorward::pb;
use doorward::pb::event_service_server::EventService;
use prost::Message;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// The stream that one would write otherwise.
pub struct Plain(pub broadcast::Sender<Arc<pb::Event>>);

pub type Plainly = Pin<Box<dyn Stream<Item = Result<pb::EncodedSubscribeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl EventService for Plain {
    type SubscribeStream = Plainly;

    async fn subscribe(&self, _: Request<pb::SubscribeRequest>) -> Result<Response<Plainly>, Status> {
        let events = BroadcastStream::new(self.0.subscribe()).map(|event| {
            let event = event.map_err(|_| Status::data_loss("too slow"))?;
            Ok(pb::EncodedSubscribeResponse { events: vec![event.encode_to_vec().into()], ..Default::default() })
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(pb::EncodedSubscribeResponse::default())).chain(events))))
    }

    async fn list_events(&self, _: Request<pb::ListEventsRequest>) -> Result<Response<pb::ListEventsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn get_event(&self, _: Request<pb::GetEventRequest>) -> Result<Response<pb::GetEventResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn correct_event(&self, _: Request<pb::CorrectEventRequest>) -> Result<Response<pb::CorrectEventResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn get_snapshot(&self, _: Request<pb::GetSnapshotRequest>) -> Result<Response<pb::GetSnapshotResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

/// The same event on the wire, as large as the log's.
pub fn plain_event(sequence: u64, event: &Event) -> pb::Event {
    let time = |us: i64| Some(prost_types::Timestamp { seconds: us / 1_000_000, nanos: 0 });
    let decision = event.decision.as_ref().map(|decision| pb::Decision {
        purpose: pb::Purpose::Identify.into(),
        similarity: decision.similarity,
        threshold: decision.threshold,
        rejection: pb::IdentificationRejection::BelowThreshold.into(),
        runner_up: decision.runner_up.map(|second| pb::Candidate {
            subject_uid: second.subject.0.to_string(),
            similarity: second.similarity,
            ..Default::default()
        }),
        margin: decision.margin,
        gallery_subject_count: decision.gallery_subjects,
        gallery_version: decision.gallery_version,
        template_space: decision.space.clone(),
        shots_fused: event.shots.fused,
        shots_rejected: event.shots.rejected.clone().into_iter().collect(),
        ..Default::default()
    });
    pb::Event {
        sequence,
        epoch: Uuid::nil().to_string(),
        cursor: format!("{}-{sequence:x}", Uuid::nil().simple()),
        r#type: pb::EventType::Unidentified.into(),
        camera_id: event.camera.to_string(),
        visit_id: event.visit.map(|visit| visit.0.to_string()).unwrap_or_default(),
        track_id: event.track.map_or(0, |track| track.0),
        capture_time: time(event.capture_time_us),
        decision_time: time(event.decision_time_us),
        actionable_until: time(event.actionable_until_us),
        decision,
        box_in_frame: event.box_in_frame.map(|b| pb::NormalisedBox { x: b.x, y: b.y, width: b.width, height: b.height }),
        detection_score: event.detection_score,
        quality: event.quality,
        stage_times: event.stage_times.map(|t| pb::StageTimes {
            decode_ms: t.decode_ms,
            wait_ms: t.wait_ms,
            detect_ms: t.detect_ms,
            encode_ms: t.encode_ms,
            match_ms: t.match_ms,
            decide_ms: t.decide_ms,
            publish_ms: 1.0,
        }),
        ..Default::default()
    }
}
