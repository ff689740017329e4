"""The loop that a user would write without doorward: OpenCV's detector and encoder on every frame.

In: a video, the two models as published, people with one photo each. Out: one JSON line with the
CPU time a frame, the faces seen and who was recognised in how many frames.
One thread; loading, enrolling and the first frame's set-up are not counted.
Must not know: doorward.
"""

import argparse
import json
import os
import sys
import time

# Read when the libraries are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2

NMS_IOU = 0.3
FACES_MAX = 5000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", required=True)
    parser.add_argument("--detector", required=True, help="YuNet, ONNX")
    parser.add_argument("--encoder", required=True, help="SFace, ONNX")
    parser.add_argument("--person", action="append", default=[], metavar="NAME=PHOTO")
    parser.add_argument("--detector-side", type=int, default=640, help="the longer side of the detector's input, in pixels")
    parser.add_argument("--score-min", type=float, default=0.7)
    parser.add_argument("--threshold", type=float, default=0.363, help="cosine similarity from which on two faces are one person")
    arguments = parser.parse_args()

    cv2.setNumThreads(1)
    detector = cv2.FaceDetectorYN.create(arguments.detector, "", (320, 320), arguments.score_min, NMS_IOU, FACES_MAX)
    encoder = cv2.FaceRecognizerSF.create(arguments.encoder, "")
    people = enrol(detector, encoder, arguments)

    video = cv2.VideoCapture(arguments.video)
    width, height = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
    scale = arguments.detector_side / max(width, height)
    size = (round(width * scale), round(height * scale))
    detector.setInputSize(size)
    detector.detect(cv2.resize(cv2.imread(arguments.person[0].partition("=")[2]), size))

    frames, faces_seen, decode_seconds, identities = 0, 0, 0.0, {}
    begin = time.process_time()
    while True:
        before = time.process_time()
        is_read, frame = video.read()
        decode_seconds += time.process_time() - before
        if not is_read:
            break
        frames += 1
        small = frame if scale == 1 else cv2.resize(frame, size)
        _, faces = detector.detect(small)
        for face in faces if faces is not None else []:
            faces_seen += 1
            # The last number is the score; the others are pixels of the small frame.
            face[:-1] /= scale
            template = encoder.feature(encoder.alignCrop(frame, face))
            similarities = {name: encoder.match(template, known, cv2.FaceRecognizerSF_FR_COSINE) for name, known in people.items()}
            best = max(similarities, key=similarities.get)
            if similarities[best] >= arguments.threshold:
                identities[best] = identities.get(best, 0) + 1
    seconds = time.process_time() - begin
    if frames == 0:
        print(f"{arguments.video}: no frame could be decoded", file=sys.stderr)
        return 1
    print(
        json.dumps(
            {
                "mode": "opencv",
                "opencv": cv2.__version__,
                "frames": frames,
                "cpu_ms_per_frame": seconds * 1e3 / frames,
                "decode_ms_per_frame": decode_seconds * 1e3 / frames,
                "faces": faces_seen,
                "identities": identities,
            }
        )
    )
    return 0


def enrol(detector, encoder, arguments) -> dict:
    people = {}
    for person in arguments.person:
        name, _, photo = person.partition("=")
        image = cv2.imread(photo)
        height, width = image.shape[:2]
        scale = arguments.detector_side / max(width, height)
        small = cv2.resize(image, None, fx=scale, fy=scale)
        detector.setInputSize((small.shape[1], small.shape[0]))
        _, faces = detector.detect(small)
        if faces is None:
            raise SystemExit(f"{photo}: no face")
        faces[0][:-1] /= scale
        people[name] = encoder.feature(encoder.alignCrop(image, faces[0])).copy()
    return people


if __name__ == "__main__":
    sys.exit(main())
