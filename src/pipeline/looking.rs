//! Finds the faces of a batch, and what can be found of it where there is no room for all at once, or one picture cannot be read.
//!
//! In: frames, each with its camera's scene. Out: the faces of each frame, and whether it was looked at.
//! A frame that was not is lost and told; the others of its batch are not.
//! Must not know: who follows the faces.

use std::sync::Arc;

use super::{Pipeline, SceneCell};
use crate::face::Detection;
use crate::frame::Frame;
use crate::infer::{DetectRequest, InferError, Lane};

impl Pipeline {
    /// The faces of each frame, none of one that is watched no longer, and which frames were looked at.
    pub(super) async fn detect(&self, batch: &[Frame], cells: &[Option<Arc<SceneCell>>]) -> (Vec<Vec<Detection>>, Vec<bool>) {
        let requests = || batch.iter().zip(cells).filter_map(|(frame, cell)| Some(cell.as_ref()?.scene().request(frame))).collect();
        let mut found = self.detect_all(requests).await.into_iter();
        let of_frame = |cell: &Option<Arc<SceneCell>>| if cell.is_some() { found.next().flatten() } else { Some(Vec::new()) };
        let found: Vec<_> = cells.iter().map(of_frame).collect();
        let analysed = found.iter().map(Option::is_some).collect();
        (found.into_iter().map(Option::unwrap_or_default).collect(), analysed)
    }

    /// The faces of each picture; `None` of those that are lost. What is asked is made again in the rare case that it is needed twice.
    async fn detect_all(&self, requests: impl Fn() -> Vec<DetectRequest>) -> Vec<Option<Vec<Detection>>> {
        let all = requests();
        let count = all.len();
        match self.0.engine.detect(Lane::Live, all).await {
            Ok(found) => found.into_iter().map(Some).collect(),
            // It may be one camera's pictures that there is no room for, or that are none.
            Err(InferError::NoRoom(_) | InferError::BadPicture(_)) if count > 1 => {
                let mut found = Vec::with_capacity(count);
                for request in requests() {
                    let alone = self.0.engine.detect(Lane::Live, vec![request]).await;
                    found.push(alone.map_err(|error| self.lost(&error, 1)).ok().and_then(|mut found| found.pop()));
                }
                found
            }
            Err(error) => {
                self.lost(&error, count);
                vec![None; count]
            }
        }
    }

    fn lost(&self, error: &InferError, frames: usize) {
        self.0.failed.tell(error, frames, self.0.clock.now());
    }
}
