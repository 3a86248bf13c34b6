"""Public tables: what their numbers are, and that only networks known to be the same are matched."""

from pathlib import Path

import pytest

from nas.bench.public_tables import read_hailo, read_ncnn, read_rknn, read_timm
from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile
from nas.errors import DataError
from nas.spaces.network import load_network

TIMM = "model,infer_img_size,infer_samples_per_sec,infer_step_time,infer_batch_size,param_count,infer_gmacs,infer_macts\n"


def test_timm_throughput_is_milliseconds_a_frame_and_foreign_networks_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        TIMM + "resnet18,224,1,512.0,256,11.69,1,1\nresnet18,225,1,1,1,11.69,1,1\nresnet50,224,1,1,1,99.0,1,1\nnobody,224,1,1,1,1,1,1\n"
    )
    rows = list(read_timm(path, "gpu", "GPU", "gpu", "pytorch"))
    assert [(r.network, r.ms, r.quantity, r.batch, r.precision) for r in rows] == [("resnet18", 2.0, "reciprocal_throughput", 256, "fp16")]
    (row,) = [r for r in read_timm(path, "cpu", "CPU", "cpu", "pytorch") if r.batch == 1]
    assert row.precision == "fp32"


def test_ncnn_threads_and_gpus_are_devices_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text(
        "device,threads,gpu,loop,model,min,max,avg\nBoard (A76),4,-1.0,8,resnet18,10,12,11\nBoard (A76),1,0.0,8,resnet18,5,6,5.5\n,1,0,8,model,x,y,z\n"
    )
    rows = list(read_ncnn(path))
    assert [(r.device, r.kind, r.threads, r.ms) for r in rows] == [("ncnn-board-4t", "cpu", 4, 10.0), ("ncnn-board-gpu", "gpu", None, 5.0)]


def test_ncnn_names_networks_of_its_own(tmp_path: Path) -> None:
    """Its AlexNet is Caffe's, its detectors are kept with the network whose blocks they repeat."""
    path = tmp_path / "n.csv"
    lines = [f"Board,4,-1.0,8,{model},10,12,11" for model in ("alexnet", "mobilenet_ssd", "mobilenet", "FastestDet", "squeezenet_int8")]
    path.write_text("\n".join(["device,threads,gpu,loop,model,min,max,avg", *lines]) + "\n")
    found = {r.network: r.family for r in read_ncnn(path)}
    assert found == {
        "alexnet_bvlc": "alexnet",
        "mobilenet_ssd": "mobilenetv1",
        "mobilenetv1_100": "mobilenetv1",
        "fastestdet": "shufflenetv2",
    }
    assert load_network("alexnet_bvlc").graph.cost.params == pytest.approx(60.97e6, rel=1e-3)  # Caffe's, with two groups


def test_accelerators_are_reciprocal_throughput(tmp_path: Path) -> None:
    path = tmp_path / "h.csv"
    head, rest = "device,task,model,fps_b1,fps_b8,res,params_m,ops_g", "224x224x3,11.68,3.6"
    path.write_text(f"{head}\nHAILO8,classification,resnet_v1_18,500,500,{rest}\nHAILO8L,classification,resnet_v1_18,100,300,{rest}\n")
    row, streamed = read_hailo(path)
    assert (streamed.device, streamed.ms) == ("hailo-8l-streamed", 10.0)  # faster in batches: loaded part by part
    assert (row.device, row.network, row.ms, row.quantity, row.precision) == ("hailo-8", "resnet18", 2.0, "reciprocal_throughput", "w8a8")
    path.write_text('model,shape,dtype,device,fps\nresnet50-v2-7,"[1, 3, 224, 224]",INT8,RK3562,50\n')
    (row,) = read_rknn(path)
    assert (row.device, row.network, row.ms) == ("rk3562", "resnet50", 20.0)
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rknn(tmp_path / "none.csv"))


@pytest.mark.parametrize("device", ["rtx-3090", "rtx-4090", "i9-10940x"])
def test_committed_profiles_estimate(device: str) -> None:
    profile = load_profile(device)
    small, large = (
        load_predictor(profile).estimate(load_network(name).graph, profile, profile.default_precision) for name in ("resnet18", "resnet101")
    )
    assert 1.5 < large.latency_ms / small.latency_ms < 8
    assert profile.quantity == ("latency" if device.startswith("i9") else "reciprocal_throughput")
