include $(sort $(wildcard $(BR2_EXTERNAL_COMPTOIR_PATH)/package/*/*.mk))
