"""Pages as a browser opens them."""

WIDTHS = (390, 768, 1440)


def opened(chromium, url, width, scheme="light"):
    """A page, and a list that its errors will be in."""
    page, errors = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    return page, errors
