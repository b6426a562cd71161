"""PDFs written by hand."""

import zlib


def pdf(
    drawn: bytes, pages: int = 1, form: bytes = b"", font: bytes = b"", names: int = 0
) -> bytes:
    """Pages that share one stream of operators; it may draw a form by "/X Do".

    Args:
        font: more facts of the font, which is there by so many further names.
    """
    first = 6
    kids = b" ".join(b"%d 0 R" % number for number in range(first, first + pages))
    fonts = b" ".join([b"/F 3 0 R", *[b"/F%d 3 0 R" % number for number in range(names)]])
    resources = b"<< /Font << %s >> /XObject << /X 5 0 R >> >>" % fonts
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, pages),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica %s >>" % font,
        _stream(drawn),
        _stream(form, b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources " + resources),
    ]
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources %s >>"
    objects += [page % resources] * pages
    content, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size, start = len(objects) + 1, len(content)
    content += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    return content + b"trailer << /Root 1 0 R /Size %d >>\nstartxref\n%d\n%%%%EOF" % (size, start)


def _stream(content: bytes, facts: bytes = b"") -> bytes:
    packed = zlib.compress(content, 9)
    head = b"<< %s /Length %d /Filter /FlateDecode >>" % (facts, len(packed))
    return b"%s\nstream\n%s\nendstream" % (head, packed)
