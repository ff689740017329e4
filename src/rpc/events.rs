//! `EventService`: what happens, as it happens, what happened, and the pictures that belong to it.
//!
//! In: subscriptions, pages of the past, snapshot ids. Out: streams of events, events, JPEGs.
//! A subscriber too many is refused; one that asks for what is no longer kept is told so.
//! Must not know: who writes events.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Code, Request, Response, Status};

use super::convert::{event, moment, time, uuid};
use super::correct::correct;
use super::feed::{self, View};
use super::filter::{Filter, Wanted};
use super::outgoing::{Outgoing, to_the_end};
use super::page::{Page, place};
use super::status::{Refusal, stopping};
use super::{Shared, auth, connection};
use crate::clock::Timestamp;
use crate::event::SnapshotId;
use crate::event_log::Start;
use crate::pb::event_service_server::EventService;
use crate::pb::subscribe_request::Start as AskedStart;
use crate::pb::{
    CorrectEventRequest, CorrectEventResponse, EncodedSubscribeResponse, Event, GetEventRequest, GetEventResponse, GetSnapshotRequest,
    GetSnapshotResponse, ListEventsRequest, ListEventsResponse, SubscribeRequest,
};
use crate::store::Past;

/// How long a subscriber may take the last events when the daemon stops.
const LAST_EVENTS_MAX: Duration = Duration::from_secs(1);
/// How many events are read at once for a list.
const READ_AT_ONCE: usize = 512;
/// How many events are searched at once, and for one page; a filter that lets little through takes more
/// pages.
const SEARCHED_AT_ONCE: u64 = 8_192;
const SEARCHED_MAX: u64 = 8 * SEARCHED_AT_ONCE;

/// The service.
pub(super) struct EventsApi(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl EventService for EventsApi {
    type SubscribeStream = Outgoing<EncodedSubscribeResponse>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let admission = auth::admission(&request);
        let peer = connection::address(&request).map(|address| address.to_string()).unwrap_or_default();
        let request = request.into_inner();
        let start = start(request.start.as_ref())?;
        let filter = Filter::read(&Wanted::from(&request))?;
        let parts = &self.0.parts;
        if !request.allow_missing {
            filter.refuse_missing(&parts.cameras, &parts.store).await?;
        }
        let place = self.0.subscriber_place()?;
        let newest_at_start = parts.events.position().sequence;
        let mut subscription = parts.events.subscribe_from(start).await?;
        subscription.name(peer);
        let view = View {
            filter,
            gallery: parts.gallery.clone(),
            encoded: Arc::clone(&self.0.encoded),
            clock: parts.clock.clone(),
            position: subscription.position(),
            disk_full: parts.events.disk_full(),
            newest_at_start,
        };
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

    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let request = request.into_inner();
        let filter = Filter::read(&Wanted::from(&request))?;
        let list = list_name(&request);
        let page = Page::read(request.page_size, &request.page_token, &list)?;
        let mut past = past(&request, page.after.as_deref())?;
        let store = &self.0.parts.store;
        let span = store.log_span().await?;
        (past.after, past.before) = (past.after.max(span.oldest.saturating_sub(1)), past.before.min(span.newest + 1));
        let (mut events, begin) = (Vec::new(), past);
        let searched = |past: &Past| (past.after - begin.after) + (begin.before - past.before);
        while events.len() < page.size && searched(&past) < SEARCHED_MAX && past.after + 1 < past.before {
            // A part of the order, so that a search takes no longer for finding little.
            let mut part = past;
            if past.newest_first {
                part.after = past.after.max(past.before.saturating_sub(SEARCHED_AT_ONCE + 1));
            } else {
                part.before = past.before.min(past.after + SEARCHED_AT_ONCE + 1);
            }
            let found = store.past_events(part, READ_AT_ONCE).await?;
            let is_whole = found.len() < READ_AT_ONCE;
            for logged in found {
                if events.len() == page.size {
                    break;
                }
                *(if past.newest_first { &mut past.before } else { &mut past.after }) = logged.sequence;
                events.extend(self.wire(&logged, &filter));
            }
            if is_whole && events.len() < page.size {
                if past.newest_first { past.before = part.after + 1 } else { past.after = part.before - 1 }
            }
        }
        let is_end = past.after + 1 >= past.before;
        let reached = if past.newest_first { past.before } else { past.after };
        let next_page_token = if is_end { String::new() } else { Page::token(&list, &reached.to_string()) };
        Ok(Response::new(ListEventsResponse { events, next_page_token }))
    }

    async fn get_event(&self, request: Request<GetEventRequest>) -> Result<Response<GetEventResponse>, Status> {
        let at = place(&request.get_ref().cursor, "cursor")?;
        let store = &self.0.parts.store;
        let found = if at.epoch == store.epoch() { store.event(at.sequence).await? } else { None };
        let Some(logged) = found else {
            let message = "there is no such event, or it is no longer kept";
            return Err(Refusal::new(Code::NotFound, "EVENT_NOT_FOUND", message).with("sequence", at.sequence).into());
        };
        let corrections = store.corrections_of(&logged).await?;
        let wire = |logged| super::delivered(logged, &self.0.parts.gallery);
        Ok(Response::new(GetEventResponse { event: Some(wire(&logged)), corrections: corrections.iter().map(wire).collect() }))
    }

    async fn correct_event(&self, request: Request<CorrectEventRequest>) -> Result<Response<CorrectEventResponse>, Status> {
        let (shared, request) = (Arc::clone(&self.0), request.into_inner());
        Ok(Response::new(to_the_end(async move { correct(&shared, request).await }).await?))
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

impl EventsApi {
    /// The event as it is called now, if the filter lets it through.
    fn wire(&self, logged: &crate::event::LoggedEvent, filter: &Filter) -> Option<Event> {
        let gallery = &self.0.parts.gallery;
        filter.lets_through(&logged.event, gallery).then(|| {
            let subject = logged.event.subject.and_then(|uid| gallery.subject(uid));
            event::event(logged, subject.as_ref(), gallery)
        })
    }
}

fn start(asked: Option<&AskedStart>) -> Result<Start, Status> {
    Ok(match asked {
        None | Some(AskedStart::Now(_)) => Start::Now,
        Some(AskedStart::Earliest(_)) => Start::Earliest,
        Some(AskedStart::Cursor(cursor)) => Start::After(place(cursor, "cursor")?),
    })
}

/// Names the list that `request` asks for, whatever the page: a token belongs to one list.
fn list_name(request: &ListEventsRequest) -> String {
    let list = ListEventsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    Sha256::digest(list.encode_to_vec()).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// The part of the past that `request` asks for, from where the page before ended.
fn past(request: &ListEventsRequest, reached: Option<&str>) -> Result<Past, Status> {
    let bound = |time: Option<&prost_types::Timestamp>, field, open| time.map_or(Ok(open), |time| moment(time, field));
    let mut past = Past {
        after: 0,
        before: u64::MAX,
        since: bound(request.start_time.as_ref(), "start_time", Timestamp::from_micros(i64::MIN))?,
        until: bound(request.end_time.as_ref(), "end_time", Timestamp::from_micros(i64::MAX))?,
        newest_first: request.newest_first,
    };
    if let Some(reached) = reached {
        let reached = reached.parse().map_err(|_| super::page::bad_token())?;
        *(if past.newest_first { &mut past.before } else { &mut past.after }) = reached;
    }
    Ok(past)
}
