app_name = "playground"
urlpatterns = []
