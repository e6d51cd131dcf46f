"""Makes messages to a shop's support from a grammar, each to be routed to one of six desks.

Most messages also mention another desk's business, as settled or as not what is meant, so that the words alone do not
tell which desk it is for: their order does. Some are misspelt, some are short, and a few were routed wrongly.
"""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(20250211)
n = 3600
things = {
    "billing": ["the invoice", "the amount on my card statement", "a second charge", "the discount code", "the VAT on the bill",
                "the price I was charged", "the direct debit", "the payment", "the receipt", "a charge I do not recognise"],
    "delivery": ["the parcel", "the courier", "the tracking number", "the delivery date", "the shipment", "the drop-off point",
                 "the delivery slot", "the package at the depot", "the address on the label", "the missing box"],
    "returns": ["the return label", "the refund", "sending the jacket back", "the exchange for a larger size", "the return form",
                "the broken zip", "the wrong colour I got", "the refund to my card", "the faulty kettle", "the warranty claim"],
    "account": ["my password", "my login", "the email address on my profile", "the two-step code", "my user name",
                "deleting my account", "the newsletter settings", "my saved address", "the locked account", "the sign-in page"],
    "technical": ["the app", "the search page", "the checkout button", "the error message", "the page that stays blank",
                  "the update on my phone", "the payment page", "the tracking page", "the basket that empties itself", "the login button"],
    "advice": ["the size chart", "the difference between the two models", "a spare battery", "whether it fits a small kitchen",
               "when the jacket is back in stock", "a gift for my father", "the washing instructions", "the warranty you offer",
               "the delivery options to the islands", "ways to pay"],
}
desks = list(things)
problems = {
    "billing": ["is higher than agreed", "was taken twice", "does not match the order", "shows up without a reason", "was never confirmed"],
    "delivery": ["has not arrived", "went to the neighbours", "is three days late", "was left in the rain", "cannot be traced"],
    "returns": ["is still outstanding", "was refused at the counter", "took three weeks already", "was not accepted", "has not been processed"],
    "account": ["is not accepted any more", "was changed without me", "cannot be reset", "is linked to an old phone", "keeps being refused"],
    "technical": ["does not load", "crashes every time", "freezes after a second", "does nothing when I tap it", "shows an old version"],
    "advice": ["is not clear to me", "would help me to decide", "is what I would like to know about", "is hard to find on your site", "needs explaining"],
}
openers = ["hello", "hi there", "dear team", "good morning", "hi", "good evening", "to whom it may concern", "hey"]
closers = ["thanks", "thank you in advance", "kind regards", "please get back to me soon", "best wishes", "I look forward to your answer",
           "this is the second time I write", "many thanks", "please call me", "cheers"]
fillers = ["I ordered two weeks ago", "I have been a customer for years", "my order number is {k}", "I bought it as a present",
           "we are a family of four", "I tried on Monday and again today", "my friend told me about your shop", "I am writing from my phone",
           "it was item {k} from the spring catalogue", "I paid and was told to wait", "the person on the phone was kind"]
asked = ["I am writing about {t}", "my question is about {t}", "please look into {t}", "can you help me with {t}", "there is a problem with {t}",
         "{t} {p}", "{t} {p}", "{t} {p}", "I am not happy: {t} {p}", "unfortunately {t} {p}", "as you can see {t} {p}", "what about {t}"]
aside = ["I am not writing about {t}", "there is no problem with {t}", "{t} was fine", "{t} is settled", "your colleague already solved {t}",
         "I do not need help with {t}", "this has nothing to do with {t}", "{t} is not what I mean", "forget what I wrote about {t}",
         "I no longer ask about {t}", "unlike last time it is not {t}", "you asked me about {t} and that is in order"]


def pick(options):
    return options[rng.integers(len(options))]


def misspell(word):
    """One slip of the fingers: letters swapped, left out, doubled, or a neighbouring key."""
    if len(word) < 4:
        return word
    at = int(rng.integers(1, len(word) - 1))
    kind = rng.integers(4)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + chr(97 + int(rng.integers(26))) + word[at + 1 :]


def sentence(template, desk):
    return template.format(t=pick(things[desk]), p=pick(problems[desk]), k=int(rng.integers(1000, 9999)))


def message(desk):
    others = [other for other in desks if other != desk]
    said = [sentence(pick(asked), desk)]
    said += [sentence(pick(aside), pick(others)) for _ in range(rng.choice(3, p=[0.3, 0.5, 0.2]))]
    said += [sentence(pick(fillers), desk) for _ in range(rng.choice(3, p=[0.45, 0.4, 0.15]))]
    rng.shuffle(said)
    # A part of the sentences run on with a comma or "but", as people write.
    text = said[0]
    for more in said[1:]:
        text += pick([". ", ". ", ", ", ", but ", " and ", "; "]) + more
    if rng.random() < 0.5:
        text = pick(openers) + pick([", ", " ", "! "]) + text
    if rng.random() < 0.5:
        text += ". " + pick(closers)
    slips = pick([0.0, 0.02, 0.06, 0.15])
    words = [misspell(word) if rng.random() < slips else word for word in text.split(" ")]
    text = " ".join(words)
    return text.upper() if rng.random() < 0.02 else text.lower() if rng.random() < 0.3 else text


shares = np.array([0.22, 0.24, 0.18, 0.14, 0.13, 0.09])
meant = rng.choice(len(desks), n, p=shares)
routed = np.where(rng.random(n) < 0.03, rng.integers(0, len(desks), n), meant)
table = pd.DataFrame(
    {
        "message": [message(desks[index]) for index in meant],
        "desk": [desks[index] for index in routed],
    }
)
write_table(
    table,
    "desk",
    seed=3600,
    train=0.45,
    validation=0.2,
    kind="text",
    task="classification",
    metric="f1",
    goal="maximize",
    text="message",
    submission={"columns": ["desk"], "prediction": "class", "classes": desks},
)
