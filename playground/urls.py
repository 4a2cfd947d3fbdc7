from django.urls import include, path

from playground import reference, views

app_name = "playground"

conversation_patterns = [
    path("", views.conversation, name="conversation"),
    path("delete/", views.conversation_delete, name="conversation_delete"),
    path("bring-back/", views.bring_back, name="bring_back"),
    path("messages/<uid:message_uid>/", views.message_detail, name="message_detail"),
    path("messages/<uid:message_uid>/answer/", views.message_answer, name="message_answer"),
    path("messages/<uid:message_uid>/edit/", views.message_edit, name="message_edit"),
]
urlpatterns = [
    path("docs/", reference.reference, name="reference"),
    path("openapi.json", reference.description, name="description"),
    path(
        "w/<slug:workspace_slug>/playground/",
        include(
            [
                path("", views.start, name="start"),
                path("send/", views.send, name="send"),
                path("parameters/", views.parameters, name="parameters"),
                path("code/", views.code, name="code"),
                path("snippets/", views.snippet_list, name="snippets"),
                path("conversations/", views.conversation_list, name="conversation_list"),
                path("<uid:conversation_uid>/", include(conversation_patterns)),
            ]
        ),
    ),
]
