//! Cameras and their credentials as rows.
//!
//! In: cameras as the operator configured them. Out: the same, by id. Credentials lie in a table
//! of their own, in the clear in a file that only the daemon's user can read, until the store
//! encrypts; they leave it only for the connection to their camera.
//! Must not know: states, sources.

use rusqlite::{Connection, Row, params};
use url::Url;

use crate::camera::{Camera, CameraId, Credential, NormalisedPoint, NormalisedRect, Region, Role, Secret, Transport};
use crate::clock::Timestamp;
use crate::store::failure::damaged;
use crate::store::{CredentialChange, StoreError};

/// A region's name and its points, as they are written in JSON.
type RegionRow = (String, Vec<(f32, f32)>);

/// Inserts or replaces.
pub(super) fn put(db: &Connection, camera: &Camera) -> Result<(), StoreError> {
    let area = camera.region_of_interest.map(|r| json(&[r.x, r.y, r.width, r.height])).transpose()?;
    db.prepare_cached(
        "INSERT INTO cameras (id, url, display_name, role, transport, lines, zones, analysis_fps_max, detector_side,
                              region_of_interest, face_pixels_min, threshold, enabled, create_time_us, update_time_us, revision,
                              telling, target_fpir)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
         ON CONFLICT (id) DO UPDATE SET url = ?2, display_name = ?3, role = ?4, transport = ?5, lines = ?6, zones = ?7,
             analysis_fps_max = ?8, detector_side = ?9, region_of_interest = ?10, face_pixels_min = ?11, threshold = ?12,
             enabled = ?13, create_time_us = ?14, update_time_us = ?15, revision = ?16, telling = ?17, target_fpir = ?18",
    )?
    .execute(params![
        camera.id.as_str(),
        camera.url.as_str(),
        camera.display_name,
        role_name(camera.role),
        transport_name(camera.transport),
        regions_text(&camera.lines)?,
        regions_text(&camera.zones)?,
        camera.analysis_fps_max,
        camera.detector_side,
        area,
        camera.face_pixels_min,
        camera.threshold,
        camera.enabled,
        camera.create_time.as_micros(),
        camera.update_time.as_micros(),
        camera.revision.cast_signed(),
        json(&camera.telling)?,
        camera.target_fpir,
    ])?;
    Ok(())
}

/// Removes the camera and its credential; answers whether it was there.
pub(super) fn erase(db: &Connection, id: &CameraId) -> Result<bool, StoreError> {
    db.prepare_cached("DELETE FROM credentials WHERE camera = ?1")?.execute([id.as_str()])?;
    Ok(db.prepare_cached("DELETE FROM cameras WHERE id = ?1")?.execute([id.as_str()])? > 0)
}

/// All cameras by id.
pub(super) fn all(db: &Connection) -> Result<Vec<Camera>, StoreError> {
    db.prepare_cached(
        "SELECT id, url, display_name, role, transport, lines, zones, analysis_fps_max, detector_side, region_of_interest,
                face_pixels_min, threshold, enabled, create_time_us, update_time_us, revision,
                EXISTS (SELECT 1 FROM credentials WHERE camera = id), telling, target_fpir
         FROM cameras ORDER BY id",
    )?
    .query_and_then([], camera_of)?
    .collect()
}

/// Keeps, replaces or removes a camera's credential.
pub(super) fn change_credential(db: &Connection, camera: &CameraId, change: &CredentialChange) -> Result<(), StoreError> {
    if *change != CredentialChange::Keep {
        db.prepare_cached("DELETE FROM credentials WHERE camera = ?1")?.execute([camera.as_str()])?;
    }
    if let CredentialChange::Set(Credential { username, password }) = change {
        let values = params![camera.as_str(), username, password.reveal()];
        db.prepare_cached("INSERT INTO credentials (camera, username, password) VALUES (?1, ?2, ?3)")?.execute(values)?;
    }
    Ok(())
}

/// A camera's credential.
pub(super) fn credential(db: &Connection, camera: &CameraId) -> Result<Option<Credential>, StoreError> {
    db.prepare_cached("SELECT username, password FROM credentials WHERE camera = ?1")?
        .query_and_then([camera.as_str()], |row| {
            Ok(Credential { username: row.get(0)?, password: Secret::new(row.get_ref(1)?.as_str().map_err(damaged)?) })
        })?
        .next()
        .transpose()
}

fn camera_of(row: &Row<'_>) -> Result<Camera, StoreError> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(damaged);
    let area = row.get_ref(9)?.as_str_or_null().map_err(damaged)?;
    Ok(Camera {
        id: CameraId::parse(text(0)?).map_err(damaged)?,
        url: Url::parse(text(1)?).map_err(|e| damaged(format!("a camera's URL: {e}")))?,
        has_credential: row.get(16)?,
        display_name: row.get(2)?,
        role: role_of(text(3)?)?,
        transport: transport_of(text(4)?)?,
        lines: regions_of(text(5)?)?,
        zones: regions_of(text(6)?)?,
        analysis_fps_max: row.get(7)?,
        detector_side: row.get(8)?,
        region_of_interest: area.map(rect_of).transpose()?,
        face_pixels_min: row.get(10)?,
        threshold: row.get(11)?,
        target_fpir: row.get(18)?,
        enabled: row.get(12)?,
        create_time: Timestamp::from_micros(row.get(13)?),
        update_time: Timestamp::from_micros(row.get(14)?),
        revision: row.get::<_, i64>(15)?.cast_unsigned(),
        telling: serde_json::from_str(text(17)?).map_err(damaged)?,
    })
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Entry => "entry",
        Role::Exit => "exit",
        Role::Interior => "interior",
    }
}

fn role_of(name: &str) -> Result<Role, StoreError> {
    [Role::Entry, Role::Exit, Role::Interior]
        .into_iter()
        .find(|role| role_name(*role) == name)
        .ok_or_else(|| damaged(format!("a camera's role is {name:?}")))
}

fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

fn transport_of(name: &str) -> Result<Transport, StoreError> {
    [Transport::Tcp, Transport::Udp]
        .into_iter()
        .find(|transport| transport_name(*transport) == name)
        .ok_or_else(|| damaged(format!("a camera's transport is {name:?}")))
}

fn regions_text(regions: &[Region]) -> Result<String, StoreError> {
    let rows: Vec<RegionRow> = regions.iter().map(|r| (r.name.clone(), r.points.iter().map(|p| (p.x, p.y)).collect())).collect();
    json(&rows)
}

fn regions_of(text: &str) -> Result<Vec<Region>, StoreError> {
    let rows: Vec<RegionRow> = serde_json::from_str(text).map_err(damaged)?;
    let points = |points: Vec<(f32, f32)>| points.into_iter().map(|(x, y)| NormalisedPoint { x, y }).collect();
    Ok(rows.into_iter().map(|(name, corners)| Region { name, points: points(corners) }).collect())
}

fn rect_of(text: &str) -> Result<NormalisedRect, StoreError> {
    let [x, y, width, height] = serde_json::from_str(text).map_err(damaged)?;
    Ok(NormalisedRect { x, y, width, height })
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Failed(format!("a camera cannot be encoded: {e}")))
}
