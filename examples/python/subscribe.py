"""Opens the door for whom doorward identifies. No generated code: the server describes itself.

    pip install grpcio grpcio-reflection
    python subscribe.py 127.0.0.1:50051
"""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(sys.argv[1])
events = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName("doorward.v1.EventService")
Request, Response = (GetMessageClass(t) for t in (events.methods_by_name["Subscribe"].input_type, events.methods_by_name["Subscribe"].output_type))
subscribe = channel.unary_stream(f"/{events.full_name}/Subscribe", Request.SerializeToString, Response.FromString)
done = {}  # The newest event that was acted on, by epoch.
for response in subscribe(Request(types=["EVENT_TYPE_IDENTIFIED"])):
    for event in response.events:
        # The door rule: act at most once per (epoch, sequence), and only while it is not too late.
        in_time = response.server_time.ToMicroseconds() < event.actionable_until.ToMicroseconds()
        if in_time and event.sequence > done.get(event.epoch, 0):
            done[event.epoch] = event.sequence
            print(f"open the door at {event.camera_id} for {event.subject.display_name or event.subject.id}", flush=True)
