"""Files as vendors make them, built here: every format, with what they write into them besides the picture."""

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import soundfile
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from triptych.types import Artifact

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">Made with a vendor\'s model</x:xmpmeta>'
JUMBF = bytes(range(256)) * 5  # stands for a C2PA manifest


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(mode="RGB", size=(40, 24), seed=0):
    channels = {"RGB": 3, "RGBA": 4}[mode]
    return Image.fromarray(noise(size[1], size[0], channels, seed=seed), mode)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def icc():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def signed_png():
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), "", "")
    info.add_text("Comment", "from a vendor")
    data = saved(picture(size=(300, 200)), "PNG", pnginfo=info, icc_profile=icc())  # several IDAT
    begin = data.index(b"IDAT") - 4
    end = data.rindex(b"IEND") - 4
    late = chunk(b"tEXt", b"Late\0after the pixels")
    return data[:begin] + chunk(b"caBX", JUMBF) + data[begin:end] + late + data[end:]


def vendors_exif(big=False):
    block = Image.Exif()
    block.endian = ">" if big else "<"
    block[0x010E], block[0x010F], block[0x0131] = "a fox, as BFL writes it", "Black Forest Labs", "AI generated;flux"
    block.get_ifd(0x8769)[0x9003] = "2026:11:26 03:00:00"
    block.get_ifd(0x8769)[0x927C] = b"\x01\x02maker\xff\x00" * 9
    return block.tobytes()


def undescribed_exif():
    block = Image.Exif()
    block[0x0112], block[0x0131] = 1, "vendor"
    return block.tobytes()


def segment(marker, body):
    return b"\xff" + marker + struct.pack(">H", 2 + len(body)) + body


def signed_jpeg(**options):
    data = saved(picture(size=(64, 48)), "JPEG", quality=80, icc_profile=icc(), comment="vendor", **options)
    manifest, xmp = segment(b"\xeb", b"JP\0\1" + JUMBF), segment(b"\xe1", b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    return data[:2] + manifest + xmp + data[2:]


def mpo():
    out = io.BytesIO()
    picture(size=(64, 48)).save(out, "MPO", save_all=True, append_images=[picture(seed=1)])
    return out.getvalue()


def frames_of(count=5, mode="RGB"):
    return [picture(mode, seed=seed) for seed in range(count)]


def moving(kind, **options):
    first, *rest = frames_of()
    return saved(first, kind, save_all=True, append_images=rest, duration=90, loop=0, **options)


def signed_webp(**options):
    data = saved(picture("RGBA"), "WEBP", icc_profile=icc(), xmp=XMP, **options)
    body = data[8:] + b"C2PA" + struct.pack("<I", len(JUMBF)) + JUMBF
    return b"RIFF" + struct.pack("<I", len(body)) + body


def old_gif():
    data = saved(picture().quantize(16), "GIF")
    assert data[:6] == b"GIF87a"
    return data


def sine(seconds=2.0, rate=44100, channels=2):
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * (220 + 110 * at) * t) for at in range(channels)], -1).astype(np.float32)


def film(kind, video="libx264", audio=None, seconds=2, flags="", pixels="yuv420p", rate=12):
    out = io.BytesIO()
    with av.open(out, "w", format=kind, options={"movflags": flags} if flags else {}) as container:
        container.metadata["title"] = "a vendor's"
        seen = container.add_stream(video, rate=rate, options={"g": "6"}) if video else None
        heard = container.add_stream(audio, rate=48000, layout="stereo") if audio else None
        if seen:
            seen.width, seen.height, seen.pix_fmt = 64, 48, pixels
            for number in range(seconds * rate):
                frame = np.roll(noise(48, 64, 3), number, 1) // 4
                container.mux(seen.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(seen.encode())
        if heard:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sine(seconds, 48000).T), "fltp", "stereo")
            frame.sample_rate = 48000
            container.mux(heard.encode(frame))
            container.mux(heard.encode())
    return out.getvalue()


def box(name, body):
    return struct.pack(">I4s", 8 + len(body), name) + body


def signed_mp4():
    """With C2PA's box before the pixels, as its specification wants; nothing has to move since that comes last here."""
    return film("mp4") + box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + JUMBF)


def endless_mp4():
    """Its last box is the pixels, whose size is 0: to the end of the file."""
    data = film("mp4", flags="frag_keyframe+empty_moov+skip_trailer", seconds=1)
    at = data.rindex(b"mdat") - 4
    return data[:at] + bytes(4) + data[at + 4 :]


def index_first():
    """Which is written twice, and so needs a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        options = {"movflags": "+faststart"}
        with av.open(io.BytesIO(film("mp4", audio="aac"))) as old, av.open(path, "w", options=options) as new:
            copies = [new.add_stream_from_template(stream) for stream in old.streams]
            for packet in old.demux():
                if packet.size:
                    packet.stream = copies[packet.stream.index]
                    new.mux(packet)
        return path.read_bytes()


def flac_in_ogg():
    out = io.BytesIO()
    with av.open(io.BytesIO(sound("FLAC", "PCM_16"))) as old, av.open(out, "w", format="ogg") as new:
        copy = new.add_stream_from_template(old.streams[0])
        for packet in old.demux():
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    return out.getvalue()


class Pipe:
    """What cannot be gone back in, as a live stream: no index, no sizes."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += bytes(data)


def live(kind, video, audio=None, options=None):
    """The same film through a pipe."""
    out = Pipe()
    with (
        av.open(io.BytesIO(film(kind, video, audio))) as old,
        av.open(out, "w", format=kind, options=options or {}) as new,
    ):
        copies = [new.add_stream_from_template(stream) for stream in old.streams]
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return out.data


def recorded():
    """As browsers record: without an index, and without the room for one."""
    data = live("webm", "libvpx-vp9", "libopus", {"live": "1"})
    head, info = data.index(bytes.fromhex("114d9b74")), data.index(bytes.fromhex("1549a966"), 200)
    return data[:head] + data[info:]


def sound(kind, subtype=None, comment="", rate=44100, channels=2, title=""):
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, channels, subtype=subtype, format=kind) as file:
        for name, text in (("comment", comment), ("title", title)):
            if text:
                setattr(file, name, text)
        file.write(sine(rate=rate, channels=channels))
    return out.getvalue()


def bare_mp3(**options):
    data = sound("MP3", **options)
    assert data[:1] == b"\xff"
    return data


def synced(value):
    return bytes(value >> shift & 127 for shift in (21, 14, 7, 0))


def id3_frame(name, body, version):
    if version == 2:
        return name + len(body).to_bytes(3, "big") + body
    return name + (synced(len(body)) if version == 4 else struct.pack(">I", len(body))) + bytes(2) + body


def id3(frames, version, flags=0, before=b"", padding=64):
    body = before + frames + (b"" if flags & 16 else bytes(padding))
    head = bytes([version, 0, flags]) + synced(len(body))
    return b"ID3" + head + body + (b"3DI" + head if flags & 16 else b"")


def vendors_id3(version, comment=True, **options):
    names = (b"COM", b"TT2", b"GEO") if version == 2 else (b"COMM", b"TIT2", b"GEOB")
    bodies = (b"\0eng\0suno; created=2026", b"\0a vendor's", b"\0application/c2pa\0\0\0" + JUMBF)
    rows = list(zip(names, bodies, strict=True))[0 if comment else 1 :]
    return id3(b"".join(id3_frame(name, body, version) for name, body in rows), version, **options)


def xing_mp3(rate=44100):
    out = io.BytesIO()
    with av.open(out, "w", format="mp3", options={"id3v2_version": "4"}) as container:
        container.metadata["title"] = "a vendor's"
        stream = container.add_stream("libmp3lame", rate=rate, layout="stereo", options={"q": "4"})
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sine(rate=rate).T), "fltp", "stereo")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def riff_chunk(name, body):
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def listed(name, body):
    return riff_chunk(b"LIST", b"INFO" + riff_chunk(name, body))


def wav_with(*chunks, after=()):
    data = sound("WAV", "PCM_16")
    at = data.index(b"data")
    body = data[8:at] + b"".join(chunks) + data[at:] + b"".join(after)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def streamed_wav(riff=0xFFFFFFFF, samples=0xFFFFFFFF):
    data = sound("WAV", "PCM_16")
    at = data.index(b"data") + 4
    return data[:4] + struct.pack("<I", riff) + data[8:at] + struct.pack("<I", samples) + data[at + 4 :]


def uncommented_flac():
    data = sound("FLAC", "PCM_16")
    size = int.from_bytes(data[5:8], "big")
    at, last = 8 + size, 0
    while not last:
        last, length = data[at] & 128, int.from_bytes(data[at + 1 : at + 4], "big")
        at += 4 + length
    return data[:4] + bytes([data[4] | 128]) + data[5 : 8 + size] + data[at:]


def thumbnail_flac():
    """With a cover, as songs have it, and a comment of somebody else."""
    data = sound("FLAC", "PCM_16", comment="vendor")
    cover = saved(picture(), "PNG")
    body = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, 40, 24, 24, 0, len(cover)) + cover
    at = 8 + int.from_bytes(data[5:8], "big")
    return data[:at] + bytes([6]) + len(body).to_bytes(3, "big") + body + data[at:]


ODD = riff_chunk(b"C2PA", JUMBF[:-1])
MAKERS = {
    "png": ("image/png", lambda: saved(picture(), "PNG")),
    "png, signed": ("image/png", signed_png),
    "png, transparent": ("image/png", lambda: saved(picture("RGBA"), "PNG")),
    "png, palette": ("image/png", lambda: saved(picture().quantize(16), "PNG")),
    "png, 16 bits": ("image/png", lambda: saved(Image.fromarray(noise(24, 40).astype(np.uint16) * 257), "PNG")),
    "png, animated": ("image/png", lambda: moving("PNG")),
    "jpeg": ("image/jpeg", lambda: saved(picture(), "JPEG")),
    "jpeg, signed": ("image/jpeg", signed_jpeg),
    "jpeg, progressive": ("image/jpeg", lambda: signed_jpeg(progressive=True)),
    "jpeg, restarts": ("image/jpeg", lambda: signed_jpeg(restart_marker_blocks=2)),
    "jpeg, exif": ("image/jpeg", lambda: signed_jpeg(exif=vendors_exif())),
    "jpeg, exif of Motorola": ("image/jpeg", lambda: signed_jpeg(exif=vendors_exif(big=True))),
    "jpeg, exif without description": ("image/jpeg", lambda: signed_jpeg(exif=undescribed_exif())),
    "jpeg, grey": ("image/jpeg", lambda: saved(picture().convert("L"), "JPEG")),
    "jpeg, more pictures": ("image/jpeg", mpo),
    "webp, lossy": ("image/webp", lambda: saved(picture(size=(41, 23)), "WEBP", quality=70)),
    "webp, lossless": ("image/webp", lambda: saved(picture(size=(41, 23)), "WEBP", lossless=True)),
    "webp, transparent": ("image/webp", lambda: saved(picture("RGBA"), "WEBP", lossless=True)),
    "webp, lossy transparent": ("image/webp", lambda: saved(picture("RGBA"), "WEBP")),
    "webp, signed": ("image/webp", lambda: signed_webp(lossless=True)),
    "webp, exif": ("image/webp", lambda: signed_webp(exif=vendors_exif())),
    "webp, animated": ("image/webp", lambda: moving("WEBP", lossless=True)),
    "gif": ("image/gif", lambda: moving("GIF")),
    "gif, commented": ("image/gif", lambda: moving("GIF", comment=b"created with ezgif")),
    "gif, old": ("image/gif", old_gif),
    "mp4": ("video/mp4", lambda: film("mp4", audio="aac")),
    "mp4, index first": ("video/mp4", index_first),
    "mp4, signed": ("video/mp4", signed_mp4),
    "mp4, fragmented": ("video/mp4", lambda: film("mp4", audio="aac", flags="frag_keyframe+empty_moov")),
    "mp4, of any tags": ("video/mp4", lambda: film("mp4", flags="use_metadata_tags")),
    "mp4, endless": ("video/mp4", endless_mp4),
    "mov": ("video/quicktime", lambda: film("mov", audio="aac")),
    "m4a": ("audio/mp4", lambda: film("ipod", video=None, audio="aac")),
    "webm": ("video/webm", lambda: film("webm", "libvpx-vp9", "libopus")),
    "matroska": ("video/x-matroska", lambda: film("matroska", "ffv1", "pcm_s16le", pixels="bgr0")),
    "webm, live": ("video/webm", lambda: live("webm", "libvpx-vp9", "libopus", {"live": "1"})),
    "webm, recorded": ("video/webm", recorded),
    "matroska, piped": ("video/x-matroska", lambda: live("matroska", "libx264")),
    "mp3": ("audio/mpeg", bare_mp3),
    "mp3, 22 kHz": ("audio/mpeg", lambda: bare_mp3(rate=22050, channels=1)),
    "mp3, tagged by LAME": ("audio/mpeg", lambda: sound("MP3", title="a vendor's")),
    "mp3, commented": ("audio/mpeg", lambda: sound("MP3", comment="by a vendor")),
    "mp3, Xing": ("audio/mpeg", xing_mp3),
    "mp3, ID3v2.2": ("audio/mpeg", lambda: vendors_id3(2) + bare_mp3()),
    "mp3, ID3v2.3": ("audio/mpeg", lambda: vendors_id3(3) + bare_mp3()),
    "mp3, ID3v2.4": ("audio/mpeg", lambda: vendors_id3(4, comment=False) + bare_mp3()),
    "mp3, ID3v2.4 with foot": ("audio/mpeg", lambda: vendors_id3(4, flags=16) + bare_mp3()),
    "mp3, ID3v2.3 with more head": (
        "audio/mpeg",
        lambda: vendors_id3(3, flags=64, before=struct.pack(">IHI", 6, 0, 64)) + bare_mp3(),
    ),
    "wav": ("audio/wav", lambda: sound("WAV", "PCM_16")),
    "wav, float": ("audio/wav", lambda: sound("WAV", "FLOAT")),
    "wav, titled": ("audio/wav", lambda: wav_with(listed(b"INAM", b"vendor\0"), ODD)),
    "wav, commented": ("audio/wav", lambda: wav_with(listed(b"ICMT", b"suno\0"), ODD)),
    "wav, commented at the end": (
        "audio/wav",
        lambda: wav_with(ODD, after=[listed(b"ICMT", b"suno\0")]),
    ),
    "wav, ID3": ("audio/wav", lambda: wav_with(after=[riff_chunk(b"id3 ", vendors_id3(3))])),
    "wav, streamed": ("audio/wav", streamed_wav),
    "wav, streamed with zeros": ("audio/wav", lambda: streamed_wav(0, 0)),
    "flac": ("audio/flac", lambda: sound("FLAC", "PCM_24")),
    "flac, commented": ("audio/flac", lambda: sound("FLAC", "PCM_16", comment="by a vendor", title="T")),
    "flac, without comments": ("audio/flac", uncommented_flac),
    "flac, cover": ("audio/flac", thumbnail_flac),
    "ogg, Vorbis": ("audio/ogg", lambda: sound("OGG", "VORBIS", title="T")),
    "ogg, Vorbis, commented": ("audio/ogg", lambda: sound("OGG", "VORBIS", comment="by a vendor")),
    "ogg, Opus": ("audio/ogg", lambda: film("ogg", video=None, audio="libopus")),
    "ogg, Opus of Xiph": ("audio/ogg", lambda: sound("OGG", "OPUS", rate=48000, comment="by a vendor")),
    "ogg, FLAC": ("audio/ogg", flac_in_ogg),
}


@cache
def made(name):
    mime, build = MAKERS[name]
    return Artifact(mime, build())
