//! Asks inference about a batch, and where that fails about each of its frames by itself.
//!
//! In: frames, each with its camera's scene; faces in them. Out: the faces of each frame, live scores and templates of shots, and what
//! could not be had. A failure that has passed by then loses nothing, and a frame that fails by itself takes no other one with it: it is lost
//! and told.
//! Must not know: who follows the faces.

use std::ops::Range;
use std::sync::Arc;

use super::scene::Shot;
use super::{Pipeline, SceneCell};
use crate::face::{Detection, Template};
use crate::frame::Frame;
use crate::infer::{CutFace, DetectRequest, FaceInFrame, InferError, Lane};

impl Pipeline {
    /// The faces of each frame, none of one that is watched no longer, and which frames were looked at.
    pub(super) async fn detect(&self, batch: &[Frame], cells: &[Option<Arc<SceneCell>>]) -> (Vec<Vec<Detection>>, Vec<bool>) {
        let watched: Vec<_> = batch.iter().zip(cells).filter_map(|(frame, cell)| Some((frame, cell.as_ref()?))).collect();
        let of = |range: Range<usize>| watched[range].iter().map(|(frame, cell)| cell.scene().request(frame)).collect();
        let each = (0..watched.len()).map(|place| place..place + 1).collect();
        let ask = |requests: Vec<DetectRequest>| self.0.engine.detect(Lane::Live, requests);
        let mut found = self.of_each_frame(each, of, ask).await.into_iter();
        let of_frame = |cell: &Option<Arc<SceneCell>>| if cell.is_some() { found.next().flatten() } else { Some(Vec::new()) };
        let found: Vec<_> = cells.iter().map(of_frame).collect();
        let analysed = found.iter().map(Option::is_some).collect();
        (found.into_iter().map(Option::unwrap_or_default).collect(), analysed)
    }

    /// A template of each shot; `None` of those whose frame's cannot be had.
    pub(super) async fn encode(&self, shots: &[(usize, Shot)]) -> Vec<Option<Template>> {
        let of = |range: Range<usize>| shots[range].iter().map(|(_, shot)| shot.cut.clone()).collect();
        let ask = |faces: Vec<CutFace>| self.0.engine.encode(Lane::Live, faces);
        self.of_each_frame(frame_by_frame(shots), of, ask).await
    }

    /// Says of each shot how much its face looks alive, where that is wanted: the shots of which it is known, and the frames of others.
    pub(super) async fn score_liveness(&self, batch: &[Frame], mut shots: Vec<(usize, Shot)>) -> (Vec<(usize, Shot)>, Vec<usize>) {
        let is_followed = |shot: &Shot| self.0.engine.has_live_scores() && shot.track.is_some();
        let followed: Vec<_> =
            shots.iter().enumerate().filter(|(_, (_, shot))| is_followed(shot)).map(|(place, (index, _))| (*index, place)).collect();
        let of = |range: Range<usize>| {
            let face = |(index, place): &(usize, usize)| FaceInFrame { frame: batch[*index].clone(), face: shots[*place].1.face };
            followed[range].iter().map(face).collect()
        };
        let ask = |faces: Vec<FaceInFrame>| self.0.engine.live_scores(Lane::Live, faces);
        let scores = self.of_each_frame(frame_by_frame(&followed), of, ask).await;
        let mut unscored = Vec::new();
        // From behind, so that places stay what they are.
        for ((index, place), score) in followed.into_iter().zip(scores).rev() {
            match score {
                Some(score) => shots[place].1.live_score = Some(score),
                None => {
                    unscored.push(index);
                    shots.remove(place);
                }
            }
        }
        (shots, unscored)
    }

    /// The answers to questions of several frames, asked together, and where that fails each frame's by themselves: `None` to those of
    /// a frame that fails by itself. `questions` are made by their places: again in the rare case that they are asked again.
    pub(super) async fn of_each_frame<Q, A, F: Future<Output = Result<Vec<A>, InferError>>>(
        &self,
        frames: Vec<Range<usize>>,
        questions: impl Fn(Range<usize>) -> Vec<Q>,
        ask: impl Fn(Vec<Q>) -> F,
    ) -> Vec<Option<A>> {
        let Some(count) = frames.last().map(|last| last.end) else { return Vec::new() };
        match ask(questions(0..count)).await {
            Ok(answers) => answers.into_iter().map(Some).collect(),
            // It may be one camera's pictures that there is no room for, that are none, or that a device fails at; or a failure that passes.
            Err(InferError::NoRoom(_) | InferError::Session(_) | InferError::BadPicture(_)) => {
                let mut answers = Vec::with_capacity(count);
                for of_frame in frames {
                    let asked = of_frame.len();
                    match ask(questions(of_frame)).await {
                        Ok(found) => answers.extend(found.into_iter().map(Some)),
                        Err(error) => {
                            self.lost(&error, 1);
                            answers.extend(std::iter::repeat_with(|| None).take(asked));
                        }
                    }
                }
                answers
            }
            Err(error) => {
                self.lost(&error, frames.len());
                std::iter::repeat_with(|| None).take(count).collect()
            }
        }
    }

    fn lost(&self, error: &InferError, frames: usize) {
        self.0.failed.tell(error, frames, self.0.clock.now());
    }
}

/// The places of each frame's items among all of them, which stand in the order of the frames.
pub(super) fn frame_by_frame<T>(items: &[(usize, T)]) -> Vec<Range<usize>> {
    let mut begin = 0;
    let of_frame = |items: &[(usize, T)]| {
        begin += items.len();
        begin - items.len()..begin
    };
    items.chunk_by(|(a, _), (b, _)| a == b).map(of_frame).collect()
}
